"""Worker processes end with their parent, whatever they do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.workers import pool

MAIN = """
import os, sys, time
from pathlib import Path
from espnet_mlma import workers

def busy(place, holds_interpreter):
    Path(place, str(os.getpid())).touch()
    if holds_interpreter:
        sum(range(10**11))
    time.sleep(3600)

if __name__ == "__main__":
    with workers.pool(2, "waits") as pool:
        for holds_interpreter in (False, True):
            pool.submit(busy, sys.argv[1], holds_interpreter)
"""


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_for(condition) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_a_killed_process_end(tmp_path: Path, ending: int) -> None:
    script, place = tmp_path / "main.py", tmp_path / "running"
    script.write_text(MAIN)
    place.mkdir()
    main = subprocess.Popen([sys.executable, script, place])
    wait_for(lambda: len(os.listdir(place)) == 2 or main.poll() is not None)
    assert main.poll() is None
    main.send_signal(ending)
    main.wait()
    wait_for(lambda: not any(is_running(int(worker)) for worker in os.listdir(place)))


def test_a_killed_worker_is_a_one_line_error() -> None:
    message = "a process that counts was killed, .*smaller --nj"
    with pytest.raises(MlmaError, match=message), pool(1, "counts") as workers:
        workers.submit(os.abort).result()
