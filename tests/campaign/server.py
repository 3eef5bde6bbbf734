"""A `python3` that starts at once: a client in its place, and the server that forks for it.

The scripts of the recipe start a dozen Python programs, each of which imports PyTorch and ESPnet.
`install` writes a `python3` that asks this server to fork a process which has them already. That
process runs the program with the client's arguments, environment, folder and standard streams, and
ends when the client is killed.

    python -m tests.campaign.server SOCKET
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

from tests.campaign import fixtures, watch
from tests.campaign.forked import end_with_parent, status_of, take_streams

SOCKET = "MLMA_CAMPAIGN_SOCKET"
_CLIENT = """#!{python} -SEI
import json, os, signal, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["{variable}"])
told = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), os.getpgrp()]).encode()
socket.send_fds(connection, [len(told).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(told)
status = int(connection.recv(20) or b"-9")
if status < 0:
    os.kill(os.getpid(), -status)
os._exit(status)
"""
# What `mini` speaks here: seconds instead of minutes.
_MINI = {"train": 40, "dev": 3, "test": 3, "languages": ("it", "fr")}


def install(folder: Path) -> None:
    """Write the client as `python3`."""
    folder.mkdir(parents=True)
    client = folder / "python3"
    client.write_text(_CLIENT.format(python=sys.executable, variable=SOCKET))
    client.chmod(0o755)


def start(path: Path) -> None:
    """Start the server and wait until it answers; it ends with this process."""
    # The recipe's path.sh sets these, and they count when an interpreter starts.
    fixed = {"PYTHONHASHSEED": "0", "LC_ALL": "C", "PYTHONIOENCODING": "UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.campaign.server", str(path)],
        env=os.environ | fixed | {"OMP_NUM_THREADS": "1"},
    )
    while not path.exists():
        assert process.poll() is None, "the server does not start"
        time.sleep(0.05)


def main() -> None:
    """Serve until killed, or until the parent has ended."""
    fixtures.import_models()
    import espnet2.bin.aggregate_stats_dirs
    import espnet2.bin.asr_train
    import espnet2.bin.pack  # noqa: F401

    path = Path(sys.argv[1])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path) + ".new")
    listener.listen(64)
    os.rename(str(path) + ".new", path)
    running: dict[int, socket.socket] = {}
    parent = os.getppid()
    while os.getppid() == parent:
        ready, _, _ = select.select([listener, *running.values()], [], [], 0.02)
        if listener in ready:
            connection = listener.accept()[0]
            running[_fork(connection, listener)] = connection
        for pid, connection in list(running.items()):
            if connection in ready and not connection.recv(1):  # its client was killed
                os.kill(pid, signal.SIGKILL)
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError):
                    connection.sendall(str(status).encode())
                connection.close()
                del running[pid]


def _fork(connection: socket.socket, listener: socket.socket) -> int:
    size, fds, _, _ = socket.recv_fds(connection, 8, 3)
    told = b""
    while len(told) < int.from_bytes(size, "big"):
        told += connection.recv(2**20)
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        return pid
    code = 70
    try:
        end_with_parent()
        listener.close()
        os.setsid()
        take_streams(*fds)
        for fd in (*fds, connection.detach()):
            os.close(fd)
        arguments, environment, folder, group = json.loads(told)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        code = status_of(lambda: _program(arguments, group))
    finally:
        os._exit(code)


def _program(arguments: list[str], group: int) -> None:
    """What `python3 ARGUMENTS` does."""
    from espnet_mlma.data.corpora import mini

    mini.generate.__kwdefaults__.update(_MINI)
    warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
    watch.begin(arguments, group)
    sys.path[0] = os.getcwd()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
