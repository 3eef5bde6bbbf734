"""Only one process claims an output; the error names the holder."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_mlma.claims import claim
from espnet_mlma.errors import MlmaError

HOLDER = """
import sys
from pathlib import Path
from espnet_mlma.claims import claim
with claim(Path(sys.argv[1]), "writes it"):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen:
    """Start a process that claims a path until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "claimed\n"
    return holder


def test_the_error_names_host_and_process_of_the_holder(tmp_path: Path) -> None:
    holder = hold(tmp_path / "a/x")
    message = f"a/x: process {holder.pid} on {socket.gethostname()} writes it already"
    with pytest.raises(MlmaError, match=message), claim(tmp_path / "a/x", "writes it"):
        pass
    holder.communicate("")
    with claim(tmp_path / "a/x", "writes it"):
        pass
    assert os.listdir(tmp_path / "a") == []


def test_a_killed_process_holds_no_claim(tmp_path: Path) -> None:
    holder = hold(tmp_path / "x")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with claim(tmp_path / "x", "writes it"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_waiting_process_gets_the_claim(tmp_path: Path) -> None:
    holder = hold(tmp_path / "x")
    waits = HOLDER.replace('"writes it"', '"writes it", wait=True')
    command = [sys.executable, "-c", waits, str(tmp_path / "x")]
    waiting = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    holder.communicate("")
    assert waiting.communicate("")[0] == "claimed\n"
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(MlmaError, match="cannot write"), claim(tmp_path / "x/y", "writes it"):
        pass


FORKING = """
import os, sys
from pathlib import Path
from espnet_mlma.claims import claim
with claim(Path(sys.argv[1]), "writes it"):
    if not os.fork():  # the child, which has run the hooks of a fork
        print("claimed", flush=True)
    sys.stdin.read()
"""


def test_a_forked_child_that_outlives_a_killed_process_holds_no_claim(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKING, tmp_path / "x"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout.readline() == "claimed\n"
        holder.kill()
        holder.wait()
        with claim(tmp_path / "x", "writes it"):
            pass
        holder.stdin.close()  # ends the child
