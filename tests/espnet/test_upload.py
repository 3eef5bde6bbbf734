import zipfile
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.upload import upload


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Make a zip file as stage 14 does."""
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as model:
        model.writestr("meta.yaml", "files: {}\n")
    return tmp_path / "model.zip"


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:40], lambda whole: whole.replace(b"{", b"[")]
)
def test_a_damaged_zip_is_refused_before_the_upload(packed, damage) -> None:
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(
        MlmaError, match=r"model\.zip: damaged, or not a packed model .*; run stage 14"
    ):
        upload(packed, "name/model")


def test_an_unreachable_hub_is_one_line(packed: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(MlmaError, match="^name/model: .*refused.*`hf auth login`"):
        upload(packed, "name/model")
