import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import yaml
from espnet2.main_funcs.pack_funcs import pack
from espnet2.tasks.asr import ASRTask
from espnet2.tasks.slu import SLUTask

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import checkpoint

ASR = {
    "token_list": ["<blank>", "<unk>", "<space>", *"abcdefg", "<sos/eos>"],
    "token_type": "char",
    "model_conf": {"ctc_weight": 1.0},
    "frontend_conf": {"fs": "16k", "hop_length": 160},
}
BLOCKS = {"output_size": 16, "attention_heads": 2, "num_blocks": 3}
ENCODERS = {
    "conformer": {"linear_units": 16, "cnn_module_kernel": 7},
    "e_branchformer": {"linear_units": 16, "cgmlp_linear_units": 16, "use_ffn": True},
}
INTERMEDIATE = {"interctc_layer_idx": [1, 2], "interctc_use_conditioning": True}


def encode(model: torch.nn.Module):
    torch.manual_seed(1)
    with torch.inference_mode():
        return model.encode(torch.randn(2, 16000), torch.tensor([16000, 12000]))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("intermediate", [False, True])
def test_an_asr_model_equals_espnets(make_experiment, encoder, intermediate):
    options = BLOCKS | ENCODERS[encoder] | (INTERMEDIATE if intermediate else {})
    folder = make_experiment(ASRTask, **ASR, encoder=encoder, encoder_conf=options)
    model, config = checkpoint.build(folder)
    assert checkpoint.task_of(config) == "asr"
    theirs, _ = ASRTask.build_model_from_file(
        folder / "config.yaml", folder / "valid.cer_ctc.ave.pth"
    )
    ours, lengths = encode(model)
    expected, expected_lengths = encode(theirs.eval())
    assert lengths.tolist() == expected_lengths.tolist()
    if intermediate:
        ours, outputs = ours
        expected, expected_outputs = expected
        for (layer, output), (_, other) in zip(outputs, expected_outputs, strict=True):
            assert layer in (1, 2)
            torch.testing.assert_close(output, other)
    torch.testing.assert_close(ours, expected)


def test_self_conditioning_is_loaded(make_experiment, tmp_path):
    options = BLOCKS | ENCODERS["conformer"] | INTERMEDIATE
    folder = make_experiment(ASRTask, **ASR, encoder="conformer", encoder_conf=options)
    state = torch.load(folder / "valid.cer_ctc.ave.pth")
    del state["encoder.conditioning_layer.weight"]
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(MlmaError, match=r"lacks 1 parameters, first 'encoder\.conditioning_layer"):
        checkpoint.build(folder, tmp_path / "wrong.pth")


def test_parameters_of_another_size_are_refused(experiment, tmp_path):
    state = torch.load(experiment / "valid.cer_ctc.ave.pth")
    state["ctc.ctc_lo.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(
        MlmaError, match=r"wrong\.pth: 'ctc\.ctc_lo\.bias' is \[3\], the model's is \["
    ):
        checkpoint.build(experiment, tmp_path / "wrong.pth")


def test_s2t_ctc_is_recognised_by_its_configuration(s2t_experiment):
    model, config = checkpoint.build(s2t_experiment)
    assert checkpoint.task_of(config) == "s2t_ctc"
    assert type(model).__name__ == "ESPnetS2TCTCModel" and not model.training
    # ESPnet trains OWSM-CTC with flash attention, which needs a GPU and half precision.
    assert not any(getattr(module, "use_flash_attn", False) for module in model.modules())


def test_s2t_ctc_is_loaded_strictly(s2t_experiment, tmp_path):
    state = torch.load(s2t_experiment / "valid.cer_ctc.ave.pth")
    state["decoder.embed.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(MlmaError, match=r"has unknown 1 parameters, first 'decoder\.embed\.0"):
        checkpoint.build(s2t_experiment, tmp_path / "wrong.pth")


@pytest.mark.parametrize("left", [0, 100, 10_000])
def test_a_damaged_checkpoint_is_refused(s2t_experiment, tmp_path, left):
    name = "valid.cer_ctc.ave.pth"
    shutil.copy(s2t_experiment / "config.yaml", tmp_path)
    (tmp_path / name).write_bytes((s2t_experiment / name).read_bytes()[:left])
    with pytest.raises(MlmaError, match=f"{name}: a damaged checkpoint"):
        checkpoint.build(tmp_path)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(MlmaError, match=f"{name}: a damaged checkpoint"):
        checkpoint.build(tmp_path)


@pytest.mark.parametrize(
    "meta", [None, "[a]", "a: b: c", "yaml_files: {asr_train_config: gone}", ""]
)
def test_a_zip_without_a_model_is_refused(tmp_path, meta):
    with ZipFile(tmp_path / "model.zip", "w") as packed:
        packed.writestr("readme", "no model")
        if meta is not None:
            packed.writestr("meta.yaml", meta)
    with pytest.raises(MlmaError, match="model.zip: ") as found:
        checkpoint.build(tmp_path / "model.zip")
    assert "/tmp" not in str(found.value).replace(str(tmp_path), "")


def test_an_option_of_another_version_is_refused(experiment, tmp_path):
    config = (experiment / "config.yaml").read_text()
    assert "encoder_conf:" in config
    (tmp_path / "config.yaml").write_text(
        config.replace("encoder_conf:", "encoder_conf:\n  of_tomorrow: 1", 1)
    )
    model = experiment / "valid.cer_ctc.ave.pth"
    with pytest.raises(MlmaError, match="config.yaml: .*'of_tomorrow'"):
        checkpoint.build(tmp_path, model)


def test_a_damaged_zip_is_refused(tmp_path):
    (tmp_path / "model.zip").write_bytes(b"PK")
    with pytest.raises(MlmaError, match="model.zip: damaged .* copy it again"):
        checkpoint.build(tmp_path / "model.zip")


def test_an_unknown_encoder_is_refused(s2t_experiment, tmp_path):
    config = yaml.safe_load((s2t_experiment / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"encoder": "other"}))
    shutil.copy(s2t_experiment / "valid.cer_ctc.ave.pth", tmp_path)
    with pytest.raises(MlmaError, match="encoder is 'other', which may download or run files"):
        checkpoint.build(tmp_path)


def test_other_tasks_are_refused(s2t_experiment, tmp_path):
    from espnet2.tasks.s2t import S2TTask

    for task in (SLUTask, S2TTask):
        config = vars(task.get_parser().parse_args(["--output_dir", "x"]))
        assert checkpoint.task_of(config) is None
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(s2t_experiment / "valid.cer_ctc.ave.pth", tmp_path)
    with pytest.raises(MlmaError, match="not of a CTC model; give one that ESPnet's asr or s2t_"):
        checkpoint.build(tmp_path)


@pytest.fixture
def published(s2t_experiment, tmp_path) -> Path:
    """Write a model as `espnet2.bin.pack` and the hub store it, with statistics."""
    root = tmp_path / "published"
    folder = root / "exp" / "s2t_owsm"
    statistics = root / "exp" / "s2t_stats" / "feats_stats.npz"
    folder.mkdir(parents=True)
    statistics.parent.mkdir()
    np.savez(statistics, count=10, sum=np.zeros(80), sum_square=np.ones(80) * 10)
    config = yaml.safe_load((s2t_experiment / "config.yaml").read_text())
    config["normalize"] = "global_mvn"
    config["normalize_conf"] = {"stats_file": "exp/s2t_stats/feats_stats.npz"}
    state = torch.load(s2t_experiment / "valid.cer_ctc.ave.pth")
    state |= {"normalize.mean": torch.zeros(80), "normalize.std": torch.ones(80)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(state, folder / "valid.total_count.ave_5best.till45epoch.pth")
    names = {
        "files": {
            "s2t_model_file": "exp/s2t_owsm/valid.total_count.ave_5best.till45epoch.pth",
        },
        "yaml_files": {"s2t_train_config": "exp/s2t_owsm/config.yaml"},
    }
    (root / "meta.yaml").write_text(yaml.safe_dump(names))
    return root


def test_an_unpacked_model_loads_from_its_folder(published, monkeypatch):
    monkeypatch.chdir("/")
    model, config = checkpoint.build(published)
    assert model.normalize.mean.shape == (80,)
    assert checkpoint.task_of(config) == "s2t_ctc"


def test_a_packed_model_loads(published, tmp_path, monkeypatch):
    monkeypatch.chdir(published)
    names = yaml.safe_load(Path("meta.yaml").read_text())
    statistics = ["exp/s2t_stats/feats_stats.npz"]
    pack(names["files"], names["yaml_files"], tmp_path / "owsm.zip", statistics)
    monkeypatch.chdir("/")
    _, config = checkpoint.build(tmp_path / "owsm.zip")
    assert checkpoint.task_of(config) == "s2t_ctc"
    names["files"]["tts_model_file"] = names["files"].pop("s2t_model_file")
    (published / "meta.yaml").write_text(yaml.safe_dump(names))
    with pytest.raises(MlmaError, match=r"meta\.yaml: has \['s2t_train_config', 'tts_model_fi"):
        checkpoint.build(published)


def test_a_missing_file_of_a_folder_is_an_error(published):
    (published / "exp/s2t_owsm/valid.total_count.ave_5best.till45epoch.pth").unlink()
    with pytest.raises(MlmaError, match=r"till45epoch\.pth: no such file; copy or download"):
        checkpoint.build(published)


@pytest.fixture
def offline_hub(tmp_path, monkeypatch) -> Path:
    """Make the hub's cache empty and the network unreachable."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.parametrize("hub_id", ["some-user/owsm_ctc.v9", "some-user/owsm_ctc.v9@rev1"])
def test_a_hub_id_loads_from_the_cache(published, offline_hub, hub_id):
    """The cache has the layout of huggingface_hub: snapshots link to files named by hash."""
    repository = offline_hub / "models--some-user--owsm_ctc.v9"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    for name in ("main", "rev1"):
        (repository / "refs" / name).write_text("c" * 40)
    for i, file in enumerate(path for path in published.rglob("*") if path.is_file()):
        link = repository / "snapshots" / ("c" * 40) / file.relative_to(published)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob = repository / "blobs" / str(i)
        shutil.copy(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    _, config = checkpoint.build(Path(hub_id))
    assert checkpoint.task_of(config) == "s2t_ctc"


def test_without_network_the_error_says_what_to_do(offline_hub):
    with pytest.raises(MlmaError) as error:
        checkpoint.build(Path("some-user/some-model"))
    message = str(error.value)
    assert message.startswith("some-user/some-model: no such file or folder, and not found")
    assert "run `hf download some-user/some-model --local-dir FOLDER` and give FOLDER" in message
    assert f"copy {offline_hub}/models--some-user--some-model from it" in message
    assert "\n" not in message


def test_a_mistyped_path_is_not_a_hub_id(offline_hub):
    Path("exp").mkdir()
    for path in ("exp/asr_typo", "conf/config.yaml", "/no/such/folder", "a/b/c", "typo"):
        with pytest.raises(MlmaError, match="no such file; give an experiment folder"):
            checkpoint.build(Path(path))
