"""Files and folders appear whole, and an old one stays until then."""

import os
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder, whole, write


def fill_up(new: Path) -> None:
    """Write something, then have no more room."""
    (new / "text").write_text("half")
    with open("/dev/full", "w") as full:
        full.write("a" * 100_000)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_full_disk_leaves_the_old_folder(tmp_path):
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("old"))
    with pytest.raises(MlmaError, match="cannot write .*x: No space left on device"):
        replace_folder(tmp_path / "x", fill_up)
    assert (tmp_path / "x/text").read_text() == "old"
    assert left(tmp_path) == ["x"]


def test_an_error_that_is_none_of_the_disk_leaves_it_too(tmp_path):
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("old"))
    with pytest.raises(ZeroDivisionError):
        replace_folder(tmp_path / "x", lambda new: 1 / 0)
    assert (tmp_path / "x/text").read_text() == "old"
    assert left(tmp_path) == ["x"]


def test_a_kill_between_the_two_renamings_loses_nothing(tmp_path):
    """The old folder was moved aside, and the new one had not come yet."""
    (tmp_path / ".x.old").mkdir()
    (tmp_path / ".x.old/text").write_text("old")
    with pytest.raises(MlmaError, match="No space left"):
        replace_folder(tmp_path / "x", fill_up)
    assert (tmp_path / "x/text").read_text() == "old"
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("new"))
    assert (tmp_path / "x/text").read_text() == "new"
    assert left(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_file_that_was_not_finished_is_gone(tmp_path, error):
    write(tmp_path / "a/x", "old")
    with pytest.raises((MlmaError, KeyboardInterrupt)), whole(tmp_path / "a/x") as new:
        new.write_text("half")
        raise error
    assert (tmp_path / "a/x").read_text() == "old"
    assert left(tmp_path / "a") == ["x"]


def test_a_link_stays_and_what_it_points_at_is_replaced(tmp_path):
    write(tmp_path / "real/x", "old")
    (tmp_path / "link").symlink_to("real/x")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/x").read_text() == "new"


def test_a_pipe_is_written_into_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe", "text")
    assert os.read(reader, 100) == b"text"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_is_no_file(tmp_path):
    for folder in (tmp_path, Path(), Path("/")):
        with pytest.raises(MlmaError, match="a folder; name a file"):
            write(folder, "text")
