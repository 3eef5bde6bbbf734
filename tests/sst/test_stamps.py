"""Tests of stamps: retrained weights differ from the old ones."""

import os
import shutil
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.stamps import of_recogniser, of_weights


def made(path, size=4, written=1_000_000_007):
    path.write_bytes(bytes(size))
    os.utime(path, ns=(0, written))
    return path


def test_rewritten_file_has_another_stamp(tmp_path):
    file = made(tmp_path / "model.gguf")
    assert of_weights(file) == [("model.gguf", 4, 1_000_000_007)]
    made(file, 5)
    assert of_weights(file) == [("model.gguf", 5, 1_000_000_007)]
    made(file, 5, 1_000_000_008)
    assert of_weights(file) == [("model.gguf", 5, 1_000_000_008)]


def test_hugging_face_folder_has_the_stamps_of_its_weights(tmp_path):
    for name in ("model-2.safetensors", "config.json", "model-1.safetensors", "pytorch_model.bin"):
        made(tmp_path / name)
    (tmp_path / "lost.safetensors").symlink_to("nowhere")
    names = [name for name, _, _ in of_weights(tmp_path)]
    assert names == ["model-1.safetensors", "model-2.safetensors", "pytorch_model.bin"]


@pytest.mark.parametrize("of", [of_weights, of_recogniser])
@pytest.mark.parametrize("name", ["user/model", "user/model@main", "lost.zip"])
def test_missing_path_has_no_stamps(of, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert of(Path(name)) == []


def test_recogniser_has_the_stamp_of_its_checkpoint(experiment, tmp_path):
    folder = shutil.copytree(experiment, tmp_path / "asr")
    made(folder / "checkpoint.pth")
    made(folder / "latest.pth")
    averaged = folder / "valid.cer_ctc.ave.pth"
    expected = of_weights(averaged)
    assert len(expected) == 1
    assert of_recogniser(folder) == of_recogniser(folder / "config.yaml") == expected
    # Training links to the average of the best checkpoints.
    averaged.unlink()
    made(folder / "best.pth", 7, 11)
    averaged.symlink_to("best.pth")
    assert of_recogniser(folder) == [("valid.cer_ctc.ave.pth", 7, 11)]
    averaged.unlink()
    (folder / "latest.pth").unlink()
    with pytest.raises(MlmaError, match="train first"):
        of_recogniser(folder)


def test_packed_recogniser_has_the_stamp_of_its_zip(tmp_path):
    assert of_recogniser(made(tmp_path / "asr.zip")) == [("asr.zip", 4, 1_000_000_007)]
