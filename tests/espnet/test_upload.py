import zipfile
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.upload import upload


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A zip file, as stage 14 leaves one."""
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as model:
        model.writestr("meta.yaml", "files: {}\n")
    return tmp_path / "model.zip"


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:40], lambda whole: whole.replace(b"{", b"[")]
)
def test_a_file_that_is_no_packed_model_is_refused_before_anything_is_sent(packed, damage) -> None:
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(MlmaError, match=r"model\.zip: not a whole packed model .*; run stage 14"):
        upload(packed, "name/model")


def test_a_hub_out_of_reach_is_one_line(packed: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(MlmaError, match=r"^name/model: .*refused.*; `hf auth login`"):
        upload(packed, "name/model")
