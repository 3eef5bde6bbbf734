from pathlib import Path

import torch

from espnet_mlma.recipe.resume import set_aside_half_written


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
