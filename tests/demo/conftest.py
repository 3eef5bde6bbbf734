import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile
import torch
from babble import babble

SERVE = """
import sys
from espnet_mlma.demo import launch
launch(sys.argv[2:], port=int(sys.argv[1]), max_minutes=0.1, max_megabytes=1)
"""


@dataclass(frozen=True)
class Server:
    port: int
    temporary: Path
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def uploads(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def models(experiment, tmp_path_factory) -> list[Path]:
    """Make two models whose transcripts differ."""
    first, second = (tmp_path_factory.mktemp("models") / name for name in ("first", "second"))
    for folder in (first, second):
        shutil.copytree(experiment, folder)
    state = torch.load(second / "valid.cer_ctc.ave.pth")
    state["ctc.ctc_lo.weight"][3:] = state["ctc.ctc_lo.weight"][3:].flip(0)
    torch.save(state, second / "valid.cer_ctc.ave.pth")
    return [first, second]


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """Serve the page as `mlma demo` does, for all tests of this room."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = Server(port, folder / "tmp", folder / "log")
    running.temporary.mkdir()
    with running.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port), *models],
            env=os.environ | {"TMPDIR": str(running.temporary)},
            stdout=log,
            stderr=log,
        )
    try:
        while f"open {running.address}" not in running.log.read_text():
            assert process.poll() is None, running.log.read_text()
            time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        code = process.wait(20)
    assert code == 0 and not list(running.temporary.iterdir())


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "noise.wav"
    noise = babble(3 * 16000)
    soundfile.write(path, noise, 16000, subtype="PCM_16")
    return path
