import zipfile
from pathlib import Path

import torch

from espnet_mlma.recipe.resume import complete_half_written, set_aside_half_written


def test_a_whole_checkpoint_stays(tmp_path: Path) -> None:
    torch.save({"model": torch.zeros(9)}, tmp_path / "checkpoint.pth")
    assert set_aside_half_written(tmp_path) is None
    assert (tmp_path / "checkpoint.pth").is_file()


def test_a_half_written_checkpoint_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": torch.zeros(9999)}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert set_aside_half_written(tmp_path) == tmp_path / "checkpoint.pth.broken"
    assert not path.exists()


def test_a_first_run_has_nothing_to_put_aside(tmp_path: Path) -> None:
    assert set_aside_half_written(tmp_path) is None


def test_a_file_whose_writer_was_interrupted_is_not_whole(tmp_path: Path) -> None:
    """It is a zip file like any other, but parameters are missing in it."""
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": torch.zeros(9)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(path, "w") as part:
        for member in whole.infolist():
            if not member.filename.endswith("data/0"):
                part.writestr(member, whole.read(member))
    assert set_aside_half_written(tmp_path) == tmp_path / "checkpoint.pth.broken"


def test_half_written_parameters_come_from_the_checkpoint(tmp_path: Path) -> None:
    first, second = ({"a": torch.full((9999,), float(i))} for i in (1, 2))
    torch.save({"model": second, "reporter": {}}, tmp_path / "checkpoint.pth")
    torch.save(first, tmp_path / "1epoch.pth")
    torch.save(second, tmp_path / "2epoch.pth")
    assert complete_half_written(tmp_path) is None
    whole = (tmp_path / "2epoch.pth").read_bytes()
    (tmp_path / "2epoch.pth").write_bytes(whole[:5000])
    assert complete_half_written(tmp_path) == tmp_path / "2epoch.pth"
    assert torch.equal(torch.load(tmp_path / "2epoch.pth")["a"], second["a"])
    assert torch.equal(torch.load(tmp_path / "1epoch.pth")["a"], first["a"])
