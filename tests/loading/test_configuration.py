"""Files of a configuration are found after the model was moved."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from espnet2.main_funcs.pack_funcs import pack

import espnet_mlma
from espnet_mlma.decode.folder import read_samples
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import checkpoint, configuration

TEXT = "the book is red"
BPE = "data/token_list/bpe_unigram40/bpe.model"
STATISTICS = "exp/stats/train/feats_stats.npz"
MODEL = "exp/asr"


@pytest.fixture
def recipe(s2t_experiment, tmp_path, monkeypatch) -> Path:
    """Write a recipe's folder with a bpe model whose paths are relative to it."""
    root = tmp_path / "recipe"
    shutil.copytree(s2t_experiment, root / MODEL)
    config = yaml.safe_load((root / MODEL / "config.yaml").read_text())
    for file in (root / BPE, root / STATISTICS):
        file.parent.mkdir(parents=True)
    shutil.copy(config["bpemodel"], root / BPE)
    np.savez(root / STATISTICS, count=10, sum=np.zeros(80), sum_square=np.ones(80) * 10)
    write_config(root, bpemodel=BPE, normalize="global_mvn",
                 normalize_conf={"stats_file": STATISTICS})  # fmt: skip
    weights = root / MODEL / "valid.cer_ctc.ave.pth"
    state = torch.load(weights) | {
        "normalize.mean": torch.zeros(80),
        "normalize.std": torch.ones(80),
    }
    torch.save(state, weights)
    monkeypatch.chdir("/")
    return root


def write_config(root: Path, **changes) -> None:
    file = root / MODEL / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))


def aligned(model: Path) -> list[str]:
    recogniser = espnet_mlma.load(model, device="cpu")
    sound = np.random.default_rng(0).normal(0, 0.1, 5 * 16000).astype(np.float32)
    return [word.text for word in recogniser.align(sound, TEXT).words]


def unchanged(root: Path) -> Path:
    return root / MODEL


def its_configuration(root: Path) -> Path:
    return root / MODEL / "config.yaml"


def copied(root: Path) -> Path:
    shutil.copytree(root, root.with_name("copy"))
    shutil.rmtree(root)
    return root.with_name("copy") / MODEL


def of_another_machine(root: Path) -> Path:
    write_config(root, bpemodel=f"/home/alice/espnet/egs2/mlma/asr1/{BPE}",
                 normalize_conf={"stats_file": f"/home/alice/egs2/{STATISTICS}"})  # fmt: skip
    return copied(root)


def flat(root: Path) -> Path:
    """Put all files into one folder."""
    for file in (BPE, STATISTICS):
        shutil.move(root / file, root / MODEL)
    shutil.move(root / MODEL, root.with_name("flat"))
    shutil.rmtree(root)
    return root.with_name("flat")


def linked(root: Path) -> Path:
    shutil.move(root / MODEL, root.with_name("disk"))
    (root / MODEL).symlink_to(root.with_name("disk"))
    return root / MODEL


def zipped(root: Path) -> Path:
    os.chdir(root)
    files = {"s2t_model_file": f"{MODEL}/valid.cer_ctc.ave.pth"}
    config = {"s2t_train_config": f"{MODEL}/config.yaml"}
    pack(files, config, "../packed.zip", [BPE, STATISTICS])
    os.chdir("/")
    shutil.rmtree(root)
    return root.with_name("packed.zip")


def zipped_absolute(root: Path) -> Path:
    """Pack from another folder, so that ESPnet writes absolute paths into meta.yaml."""
    write_config(root, bpemodel=str(root / BPE),
                 normalize_conf={"stats_file": str(root / STATISTICS)})  # fmt: skip
    os.chdir(root.parent.parent)
    (root.parent / "elsewhere").mkdir()
    os.chdir(root.parent / "elsewhere")
    files = {"s2t_model_file": str(root / MODEL / "valid.cer_ctc.ave.pth")}
    config = {"s2t_train_config": str(root / MODEL / "config.yaml")}
    pack(files, config, "../packed.zip", [str(root / BPE), str(root / STATISTICS)])
    os.chdir("/")
    shutil.rmtree(root)
    return root.with_name("packed.zip")


PLACES = [unchanged, its_configuration, copied, of_another_machine, flat, linked, zipped,
          zipped_absolute]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_bpe_model_aligns_from_anywhere(recipe, place):
    assert aligned(place(recipe)) == TEXT.split()


@pytest.mark.parametrize("place", [unchanged, copied, of_another_machine, flat])
def test_paths_of_a_loaded_configuration_are_absolute(recipe, place):
    _, config = checkpoint.build(place(recipe))
    for path in (config["bpemodel"], config["normalize_conf"]["stats_file"]):
        assert os.path.isabs(path) and os.path.isfile(path)


def test_the_models_file_precedes_that_of_the_current_folder(recipe, tmp_path, monkeypatch):
    other = tmp_path / "other"
    (other / BPE).parent.mkdir(parents=True)
    (other / BPE).write_bytes(b"of another recipe")
    monkeypatch.chdir(other)
    _, config = checkpoint.build(recipe / MODEL)
    assert config["bpemodel"] == str(recipe / BPE)
    # The recipe's experiments are in another folder.
    shutil.copy(recipe / BPE, other / BPE)
    (recipe / BPE).unlink()
    _, config = checkpoint.build(recipe / MODEL)
    assert config["bpemodel"] == str(other / BPE)


def test_only_alignment_needs_the_bpe_model(recipe):
    (recipe / BPE).unlink()
    recogniser = espnet_mlma.load(recipe / MODEL, device="cpu")
    sound = np.zeros(16000, np.float32)
    recogniser.transcribe(sound)
    with pytest.raises(MlmaError, match="needs the SentencePiece model .* bpemodel"):
        recogniser.align(sound, TEXT)


def test_a_token_list_may_be_a_file(recipe):
    tokens = yaml.safe_load((recipe / MODEL / "config.yaml").read_text())["token_list"]
    (recipe / "data/tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    write_config(recipe, token_list="data/tokens.txt")
    _, config = checkpoint.build(recipe / MODEL)
    assert config["token_list"] == tokens


def test_only_files_are_found(tmp_path):
    (tmp_path / "bpe.model").mkdir()
    os.mkfifo(tmp_path / "fifo")
    config = tmp_path / "config.yaml"
    for written in ("bpe.model", "fifo", "/dev/zero", "/dev/stdin", "", ".", "none", "x" * 300):
        assert configuration.find(config, written) is None


@pytest.mark.parametrize("where", ["touch {} |:0", " touch {} | :0", "|touch {}:0", "-:0"])
def test_a_command_in_a_table_is_refused(tmp_path, where):
    with pytest.raises(MlmaError, match="a command or stdin, not an archive"):
        read_samples(where.format(tmp_path / "run"))
    assert os.listdir(tmp_path) == []
