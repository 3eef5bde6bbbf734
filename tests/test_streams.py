"""Standard streams with narrow encodings, closed, on a full disk, and broken pipes."""

import errno
import os
import subprocess
import sys

import pytest

from espnet_mlma.errors import MlmaError, one_line, run_cli

LETTERS = "però, naïve, Größe, œuvre, cœur, ŷ"
NAME = os.fsdecode(b"caf\xe9\n.wav")


def program(body: str, launcher: str = "run_cli(main)") -> list[str]:
    """Return the command line of a program with this body, started like ours."""
    code = (
        "import os, sys\n"
        "from espnet_mlma.errors import MlmaError, run_cli\n"
        f"def main():\n    {body}\n{launcher}\n"
    )
    return [sys.executable, "-c", code]


def shell(command: list[str], redirections: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a command with redirections of a shell."""
    line = ["bash", "-c", f'"$@" {redirections}', "bash", *command]
    return subprocess.run(line, capture_output=True, env=os.environ | variables)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8", "ascii:strict"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_letter_that_the_encoding_lacks_is_replaced(encoding, unbuffered):
    done = shell(
        program(f"print({LETTERS + NAME!r}); print({LETTERS!r}, file=sys.stderr)"),
        "",
        PYTHONIOENCODING=encoding,
        PYTHONUNBUFFERED=unbuffered,
    )
    assert done.returncode == 0, done.stderr
    expected = (LETTERS + NAME + "\n").encode(encoding.partition(":")[0], "replace")
    assert done.stdout == expected
    assert b"Traceback" not in done.stderr and done.stderr.startswith(b"per")


def test_an_error_with_any_name_is_one_line():
    for encoding in ("ascii", "utf-8"):
        raised = program(f"raise MlmaError({NAME + ': no such file'!r})")
        done = shell(raised, "", PYTHONIOENCODING=encoding)
        assert done.returncode == 1
        assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert one_line(NAME) == "caf\\udce9\\n.wav"
    assert one_line(LETTERS) == LETTERS


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_the_null_device(closed, tmp_path):
    # Otherwise the next opened file would get a closed descriptor, and the prints of libraries.
    body = (
        f"file = open({str(tmp_path / 'data')!r}, 'w'); file.write('data'); "
        "print('text', flush=True); print('noise', file=sys.stderr); "
        "os.write(1, b''); os.write(2, b'noise'); os.system('echo noise >&2'); file.close()"
    )
    done = shell(program(body), closed)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data").read_text() == "data"
    assert done.stdout == (b"" if ">&-" in closed.split() else b"text\n")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("where", ["2>/dev/full", "2> >(exec true)"])
def test_an_unwritable_standard_error_loses_no_output(where, unbuffered):
    body = "import time; time.sleep(0.3); print('noise', file=sys.stderr); print('text')"
    done = shell(program(body), where, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stdout) == (0, b"text\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("ending", ["", "; raise SystemExit(0)", "; sys.stdout.flush()"])
def test_a_full_disk_is_a_one_line_error(unbuffered, ending):
    done = shell(program(f"print('text'){ending}"), ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == b"error: cannot write the output: the disk is full; make room\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100000])
def test_a_broken_pipe_ends_quietly(unbuffered, lines):
    body = f"import time; time.sleep(0.3); [print('text') for _ in range({lines})]"
    done = shell(
        program(body),
        "| (exec true); exit ${PIPESTATUS[0]}",
        PYTHONUNBUFFERED=unbuffered,
    )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_broken_pipe_of_another_stream_is_an_error():
    done = shell(program("raise BrokenPipeError(32, 'of another process')"), "")
    assert done.returncode == 1 and b"BrokenPipeError" in done.stderr


def test_a_file_that_cannot_be_opened_is_a_one_line_error_of_own_programs():
    body = "open('/no/such/file')"
    done = shell(program(body), "")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: /no/such/file: ") and done.stderr.count(b"\n") == 1
    done = shell(program(body, "run_cli(main, is_own=False)"), "")
    assert done.returncode == 1 and b"Traceback" in done.stderr


def test_streams_of_a_caller_stay(capsys):
    before = sys.stdout, sys.stderr

    def fail():
        raise MlmaError("no")

    with pytest.raises(SystemExit) as end:
        run_cli(fail)
    assert end.value.code == 1
    assert capsys.readouterr() == ("", "error: no\n")
    assert (sys.stdout, sys.stderr) == before


# The launcher, and programs of stages that need no model.
RECIPE = ["espnet_mlma.cli", "recipe"]
PROGRAMS = {
    "mlma compare": ["espnet_mlma.cli", "compare"],
    "launcher": ["espnet_mlma.run", "-c", f"print({LETTERS!r})"],
    "prepare": [*RECIPE, "prepare", "--list", "test", "--mixture", "mini"],
    "translate": ["espnet_mlma.cli", "translate", "score", "--help"],
    "tokens": [*RECIPE, "tokens", "--help"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_prepares_its_streams(name):
    command = [sys.executable, "-m", *PROGRAMS[name]]
    plain = shell(command, "", PYTHONIOENCODING="ascii")
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout and b"Traceback" not in plain.stderr
    without = shell(command, "2>&- <&-")
    assert without.returncode == 0 and len(without.stdout.decode()) == len(plain.stdout)
    full = shell(command, ">/dev/full")
    assert full.returncode in (0, 1) and b"Traceback" not in full.stderr
    assert os.strerror(errno.EBADF).encode() not in full.stderr
