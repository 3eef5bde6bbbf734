"""Files and folders are replaced whole or not at all."""

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
    """Write a file, then fail with a full disk."""
    (new / "text").write_text("half")
    with open("/dev/full", "w") as full:
        full.write("a" * 100_000)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_full_disk_keeps_the_old_folder(tmp_path):
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("old"))
    with pytest.raises(MlmaError, match="cannot write .*x: No space left on device"):
        replace_folder(tmp_path / "x", fill_up)
    assert (tmp_path / "x/text").read_text() == "old"
    assert left(tmp_path) == ["x"]


def test_another_error_keeps_the_old_folder(tmp_path):
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("old"))
    with pytest.raises(ZeroDivisionError):
        replace_folder(tmp_path / "x", lambda new: 1 / 0)
    assert (tmp_path / "x/text").read_text() == "old"
    assert left(tmp_path) == ["x"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    """The old folder was renamed, the new one not yet."""
    (tmp_path / ".x.old").mkdir()
    (tmp_path / ".x.old/text").write_text("old")
    with pytest.raises(MlmaError, match="No space left"):
        replace_folder(tmp_path / "x", fill_up)
    assert (tmp_path / "x/text").read_text() == "old"
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("new"))
    assert (tmp_path / "x/text").read_text() == "new"
    assert left(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_unfinished_file_is_removed(tmp_path, error):
    write(tmp_path / "a/x", "old")
    with pytest.raises((MlmaError, KeyboardInterrupt)), whole(tmp_path / "a/x") as new:
        new.write_text("half")
        raise error
    assert (tmp_path / "a/x").read_text() == "old"
    assert left(tmp_path / "a") == ["x"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    write(tmp_path / "real/x", "old")
    (tmp_path / "link").symlink_to("real/x")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real/x").read_text() == "new"


def test_a_pipe_is_written_directly(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe", "text")
    assert os.read(reader, 100) == b"text"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    for folder in (tmp_path, Path(), Path("/")):
        with pytest.raises(MlmaError, match="a folder; name a file"):
            write(folder, "text")


# Processes that write the same output, some of them killed.

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


def test_outputs_of_two_processes_do_not_mix(tmp_path):
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
def test_the_next_process_repairs_the_output_of_a_killed_one(tmp_path, killed):
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("old"))
    assert run_python(KILLED + killed, tmp_path).wait() == -signal.SIGKILL
    replace_folder(tmp_path / "x", lambda new: (new / "text").write_text("new"))
    assert left(tmp_path / "x") == ["text"]
    assert (tmp_path / "x/text").read_text() == "new"
    assert left(tmp_path) == ["x"]


def test_a_file_of_a_killed_process_is_truncated(tmp_path):
    killed = "with files.whole(place) as new: new.write_text('a' * 99); die()"
    assert run_python(KILLED + killed, tmp_path).wait() == -signal.SIGKILL
    with whole(tmp_path / "x") as new, open(new, "r+") as file:
        file.write("b")
    assert (tmp_path / "x").read_text() == "b"
    assert left(tmp_path) == ["x"]


def test_a_folder_in_use_by_another_process_stays(tmp_path):
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


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "x").write_text("notes")
    with pytest.raises(MlmaError, match="cannot write .*x: a file; move it away"):
        replace_folder(tmp_path / "x", lambda new: None)
    assert (tmp_path / "x").read_text() == "notes"


def test_a_name_of_the_greatest_length_is_written(tmp_path):
    name = "è" * 127
    write(tmp_path / name, "text")
    assert left(tmp_path) == [name]


# Reading text and YAML.


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz"])
def test_lines_end_in_lf_crlf_or_cr(tmp_path, mark, end, last, name):
    lines = ["città", "", "a\u0085b\u2028c\u2029d\x0be\x1cf", "\ufeffg"]
    data = mark + (end.join(lines) + end * last).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert list(read_lines(tmp_path / name)) == lines


def test_a_carriage_return_within_a_line_does_not_end_it(tmp_path):
    (tmp_path / "t").write_bytes(b"a\rb\nc\n")
    assert list(read_lines(tmp_path / "t")) == ["a\rb", "c"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "t.yaml").write_text("a: 1\n", encoding=encoding)
    message = rf"t\.yaml: text in {encoding.upper()}; save it as UTF-8"
    with pytest.raises(MlmaError, match=message):
        list(read_lines(tmp_path / "t.yaml"))
    with pytest.raises(MlmaError, match=message):
        read_yaml(tmp_path / "t.yaml", "write it again")


def test_the_error_has_the_line_of_a_byte_that_is_not_utf_8(tmp_path):
    (tmp_path / "t.yaml").write_bytes("a: 1\nb: però\n".encode("latin-1"))
    for read in (lambda path: list(read_lines(path)), lambda path: read_yaml(path, "write it")):
        with pytest.raises(MlmaError, match=r"t\.yaml:2: byte 0xf2 is not UTF-8"):
            read(tmp_path / "t.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "- a", "a: [", "a: " + "9" * 5000, "a: 2024-99-99"])
def test_yaml_without_a_mapping_is_refused(tmp_path, text):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(MlmaError, match=r"t\.yaml: .*; give another$") as error:
        read_yaml(tmp_path / "t.yaml", "give another")
    assert "\n" not in str(error.value)


def test_yaml_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "t.yaml").write_text("città: 1\n", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "t.yaml", "") == {"città": 1}


def test_yaml_with_exponential_or_recursive_aliases_is_refused(tmp_path: Path) -> None:
    levels = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghi")]
    multiplied = "\n".join(["a: &a [x]", *levels])
    for text in (multiplied, "a: &a [*a]", "a: &a {b: *a}"):
        (tmp_path / "t.yaml").write_text(text)
        with pytest.raises(MlmaError, match=r"t\.yaml: aliases expand to .*; take another"):
            read_yaml(tmp_path / "t.yaml", "take another")
    (tmp_path / "t.yaml").write_text("a: &a [x, y]\nb: *a\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "t.yaml", "")["c"] == [["x", "y"]] * 2
