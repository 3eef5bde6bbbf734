"""Files and folders appear whole, and an old one stays until then."""

import gzip
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_lines, read_yaml, replace_folder, whole, write


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


# Processes that write the same output, and processes that are killed while they do.

WRITER = """
import sys
from pathlib import Path
from espnet_mlma import files
place, own = Path(sys.argv[1]), sys.argv[2]
def fill(new):
    for number in range(20):
        (new / str(number)).write_text(own)
for _ in range(40):
    files.replace_folder(place / "folder", fill)
    with files.whole(place / "file") as new, open(new, "w") as file:
        for _ in range(20):
            print(own, file=file, flush=True)
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from espnet_mlma import files
place = Path(sys.argv[1]) / "x"
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run_python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])


def test_of_two_processes_that_write_at_once_one_is_there_and_never_a_mix(tmp_path):
    writers = [run_python(WRITER, tmp_path, own) for own in ("a", "b")]
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "file").exists():
            assert (tmp_path / "file").read_text() in ("a\n" * 20, "b\n" * 20)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(left(tmp_path)) == ["file", "folder"]
    written = [path.read_text() for path in (tmp_path / "folder").iterdir()]
    assert written in (["a"] * 20, ["b"] * 20)


@pytest.mark.parametrize(
    "killed",
    [
        "files.replace_folder(place, lambda new: (new / 'half').touch() or die())",
        "files._remove = die; files.replace_folder(place, lambda new: None)",
        "Path.rename = lambda a, b: (os.rename(a, b), die());"
        "files.replace_folder(place, lambda new: None)",
    ],
    ids=["while it is filled", "before the old one is removed", "between the two renamings"],
)
def test_a_killed_process_leaves_nothing_that_the_next_one_does_not_mend(tmp_path, killed):
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("old"))
    assert run_python(KILLED + killed, tmp_path).wait() == -signal.SIGKILL
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("new"))
    assert left(tmp_path / "x") == ["text"]
    assert (tmp_path / "x/text").read_text() == "new"
    assert left(tmp_path) == ["x"]


def test_a_file_that_a_killed_process_left_does_not_lengthen_the_next(tmp_path):
    killed = "with files.whole(place) as new: new.write_text('a' * 99); die()"
    assert run_python(KILLED + killed, tmp_path).wait() == -signal.SIGKILL
    with whole(tmp_path / "x") as new, open(new, "r+") as file:
        file.write("b")
    assert (tmp_path / "x").read_text() == "b"
    assert left(tmp_path) == ["x"]


def test_a_folder_that_another_process_still_fills_is_left_alone(tmp_path):
    def fill(new: Path) -> None:
        (new / "text").write_text("outer")
        replace_folder(tmp_path / "x", lambda inner: (inner / "text").write_text("inner"))
        assert left(new) == ["text"]

    replace_folder(tmp_path / "x", fill)
    assert (tmp_path / "x/text").read_text() == "outer"
    assert left(tmp_path) == ["x"]


def test_a_linked_folder_stays_linked(tmp_path):
    (tmp_path / "larger disk/x").mkdir(parents=True)
    (tmp_path / "x").symlink_to("larger disk/x")
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("new"))
    assert (tmp_path / "x").is_symlink()
    assert left(tmp_path / "larger disk/x") == ["text"]


def test_a_file_in_the_place_of_a_folder_is_kept(tmp_path):
    (tmp_path / "x").write_text("notes")
    with pytest.raises(MlmaError, match="cannot write .*x: a file; move it away"):
        replace_folder(tmp_path / "x", lambda new: None)
    assert (tmp_path / "x").read_text() == "notes"


def test_a_long_name_leaves_room_for_the_place_that_is_written_to(tmp_path):
    name = "è" * 127
    write(tmp_path / name, "text")
    assert left(tmp_path) == [name]


# Text that people wrote.


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
def test_lines_end_as_editors_end_them_and_nowhere_else(tmp_path, mark, end, last, name):
    lines = ["città", "", "a\u0085b\u2028c\u2029d\x0be\x1cf", "\ufeffg"]
    data = mark + (end.join(lines) + end * last).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert list(read_lines(tmp_path / name)) == lines


def test_a_carriage_return_within_a_line_ends_none(tmp_path):
    (tmp_path / "t").write_bytes(b"a\rb\nc\n")
    assert list(read_lines(tmp_path / "t")) == ["a\rb", "c"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "t.yaml").write_text("a: 1\n", encoding=encoding)
    said = rf"t\.yaml: text in {encoding.upper()}; save it as UTF-8"
    with pytest.raises(MlmaError, match=said):
        list(read_lines(tmp_path / "t.yaml"))
    with pytest.raises(MlmaError, match=said):
        read_yaml(tmp_path / "t.yaml", "write it again")


def test_a_byte_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    (tmp_path / "t.yaml").write_bytes("a: 1\nb: però\n".encode("latin-1"))
    for read in (lambda path: list(read_lines(path)), lambda path: read_yaml(path, "write it")):
        with pytest.raises(MlmaError, match=r"t\.yaml:2: byte 0xf2 is not UTF-8"):
            read(tmp_path / "t.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "- a", "a: [", "a: " + "9" * 5000, "a: 2024-99-99"])
def test_yaml_that_holds_no_mapping_is_one_line(tmp_path, text):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(MlmaError, match=r"t\.yaml: .*; give another$") as error:
        read_yaml(tmp_path / "t.yaml", "give another")
    assert "\n" not in str(error.value)


def test_yaml_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "t.yaml").write_text("città: 1\n", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "t.yaml", "") == {"città": 1}


def test_yaml_whose_aliases_multiply_or_hold_themselves_is_refused(tmp_path: Path) -> None:
    levels = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghi")]
    multiplied = "\n".join(["a: &a [x]", *levels])
    for text in (multiplied, "a: &a [*a]", "a: &a {b: *a}"):
        (tmp_path / "t.yaml").write_text(text)
        with pytest.raises(MlmaError, match=r"t\.yaml: aliases expand to .*; take another"):
            read_yaml(tmp_path / "t.yaml", "take another")
    (tmp_path / "t.yaml").write_text("a: &a [x, y]\nb: *a\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "t.yaml", "")["c"] == [["x", "y"]] * 2
