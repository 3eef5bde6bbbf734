"""Fine-tuning: what is taken from a model, and how its parameters are mapped."""

import argparse
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from espnet_mlma.data.tokens import write_tokens
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading.pretrained import (
    fine_tuning,
    main,
    mapped,
    write_parameters,
    write_start,
)

ROOT = Path(__file__).resolve().parents[2]
KNOWN = ["<blank>", "<unk>", "a", "b", "<sos/eos>"]
TOKENS = ["<blank>", "<unk>", "a", "b", "c", "d", "<sos/eos>"]


def test_rows_of_known_symbols_are_the_models():
    old = {"ctc.weight": torch.arange(10.0).view(5, 2), "back.weight": torch.ones(3, 5)}
    old |= {"bias": torch.arange(5.0), "same": torch.full((4,), 7.0)}
    fresh = {"ctc.weight": -torch.ones(7, 2), "back.weight": torch.zeros(3, 7)}
    fresh |= {"bias": -torch.ones(7), "same": torch.zeros(4)}
    found = mapped(old, fresh, KNOWN, TOKENS)
    assert found["bias"].tolist() == [0, 1, 2, 3, -1, -1, 4]
    assert found["ctc.weight"][:, 0].tolist() == [0, 2, 4, 6, -1, -1, 8]
    assert found["back.weight"][0].tolist() == [1, 1, 1, 1, 0, 0, 1]
    assert found["same"].tolist() == [7, 7, 7, 7]


@pytest.mark.parametrize(
    "fresh",
    [{"x": torch.zeros(6)}, {"x": torch.zeros(5, 1)}, {"y": torch.zeros(5)}, {}],
    ids=["another size", "another axis", "another name", "missing"],
)
def test_another_network_is_refused(fresh):
    with pytest.raises(MlmaError, match="use the model's --asr_config"):
        mapped({"x": torch.zeros(5)}, fresh, KNOWN, TOKENS)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"optim_conf": {"lr": 0.003}, "scheduler": "warmuplr"}, 0.001),
        (
            {
                "optim_conf": {"lr": 1.0, "weight_decay": 0.1},
                "scheduler": "piecewiselinearwarmuplr",
                "scheduler_conf": {"warmup_lr_list": [0.0, 0.006, 0.00003]},
            },
            0.002,
        ),
    ],
)
def test_the_learning_rate_is_a_third_of_the_peak(options, rate):
    found = fine_tuning({"encoder": "conmamba", "token_list": ["x"], **options})
    assert found["optim_conf"]["lr"] == pytest.approx(rate)
    assert found["scheduler"] == "warmuplr"
    assert "token_list" not in found and found["encoder"] == "conmamba"
    assert found["optim_conf"].keys() == options["optim_conf"].keys()


@pytest.fixture
def start(experiment: Path, tmp_path: Path) -> Path:
    write_start(str(experiment), tmp_path / "start")
    return tmp_path / "start"


def test_a_model_gets_new_symbols_and_keeps_its_own(experiment, start, tmp_path):
    known = (start / "tokens.txt").read_text().splitlines()
    write_tokens(tmp_path / "tokens", ["ża ab", "ó"], "char", 0, "unigram", start)
    tokens = (tmp_path / "tokens" / "tokens.txt").read_text().splitlines()
    assert tokens[: len(known) - 1] == known[:-1]
    assert sorted(tokens[len(known) - 1 : -1]) == ["ó", "ż"] and tokens[-1] == known[-1]
    init = tmp_path / "exp" / "pretrained.pth"
    assert write_parameters(str(experiment), tmp_path / "tokens" / "tokens.txt", None, init) == 2
    from espnet2.tasks.asr import ASRTask

    config = yaml.safe_load((experiment / "config.yaml").read_text()) | {"token_list": tokens}
    model = ASRTask.build_model(argparse.Namespace(**config))
    state = torch.load(init, weights_only=True)
    model.load_state_dict(state)
    old = torch.load(experiment / "valid.cer_ctc.ave.pth", weights_only=True)
    size = len(known) - 1
    assert torch.equal(state["ctc.ctc_lo.weight"][:size], old["ctc.ctc_lo.weight"][:size])
    assert torch.equal(state["ctc.ctc_lo.bias"][-1], old["ctc.ctc_lo.bias"][-1])
    before = init.read_bytes()
    write_parameters(str(experiment), tmp_path / "tokens" / "tokens.txt", None, init)
    assert init.read_bytes() == before
    (tmp_path / "tokens" / "tokens.txt").write_text("\n".join([*tokens[:-1], "x", tokens[-1]]))
    with pytest.raises(MlmaError, match="made from another model or token list"):
        write_parameters(str(experiment), tmp_path / "tokens" / "tokens.txt", None, init)


def test_batches_of_the_large_configurations_are_kept():
    large = yaml.safe_load((ROOT / "conf" / "train_asr_conmamba.yaml").read_text())
    found = fine_tuning(large)
    changed = {"optim_conf", "scheduler", "scheduler_conf"}
    of_data = {key for key in large if key not in found}
    assert of_data <= {"cudnn_deterministic", "cudnn_benchmark"}, of_data
    assert all(found[key] == large[key] for key in large.keys() - changed - of_data)


def test_tokens_in_another_order_are_refused(experiment, start, tmp_path):
    first, *rest = (start / "tokens.txt").read_text().splitlines()
    (tmp_path / "tokens.txt").write_text("\n".join([first, *reversed(rest[:-1]), rest[-1]]))
    with pytest.raises(MlmaError, match="does not extend the model's tokens"):
        write_parameters(str(experiment), tmp_path / "tokens.txt", None, tmp_path / "x.pth")


def test_a_run_killed_before_the_parameters_maps_again(experiment, start, tmp_path):
    init = tmp_path / "pretrained.pth"
    write_parameters(str(experiment), start / "tokens.txt", None, init)
    before = init.read_bytes()
    init.unlink()  # the record alone is there
    write_parameters(str(experiment), start / "tokens.txt", None, init)
    assert init.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "encoder: conmamba\nencoder_conf: {output_size: 4096}\n",
        "frontend_conf: {hop_length: 999}\n",
    ],
)
def test_another_configuration_is_refused(experiment, start, tmp_path, text):
    config = tmp_path / "train.yaml"
    config.write_text(text)
    options = ["--model", str(experiment), "--output", str(start), "--init", str(tmp_path / "x")]
    options += ["--token_list", str(start / "tokens.txt"), "--config", str(config)]
    with pytest.raises(MlmaError, match=f"{config}: (encoder|frontend)"):
        main(options)


def test_a_folder_of_another_model_is_refused(experiment, start, tmp_path):
    other = shutil.copytree(experiment, tmp_path / "other")
    with (other / "config.yaml").open("a") as config:
        config.write("\n# changed\n")
    with pytest.raises(MlmaError, match="was made from another model"):
        write_start(str(other), start)


def test_a_bpe_model_must_know_the_letters(tmp_path):
    texts = ["guten tag", "gute nacht", "guten abend", "tag und nacht"]
    start = tmp_path / "start"
    write_tokens(start, texts, "bpe", 25, "bpe")
    with pytest.raises(MlmaError, match="give --token_type bpe"):
        write_tokens(tmp_path / "x", texts, "char", 0, "bpe", start)
    write_tokens(tmp_path / "x", ["nacht und tag"], "bpe", 0, "bpe", start)
    for name in ("tokens.txt", "bpe.model"):
        assert (tmp_path / "x" / name).read_bytes() == (start / name).read_bytes()
    with pytest.raises(MlmaError, match=r"cannot write .* of the letters \(ż"):
        write_tokens(tmp_path / "y", ["ża nacht"], "bpe", 0, "bpe", start)
