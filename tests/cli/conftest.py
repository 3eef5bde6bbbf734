import logging
import warnings
from pathlib import Path

import pytest
import soundfile
from babble import babble

from espnet_mlma.cli import main


@pytest.fixture
def mlma(capsys):
    """Run a command in this process; gives the exit code, stdout and stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        with warnings.catch_warnings():
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = end.code or 0
            finally:
                logging.disable(logging.NOTSET)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def sounds(tmp_path_factory) -> Path:
    """A folder with sounds, one below it, and a file that is none."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, seconds in {"b.wav": 1.0, "a.flac": 2.0, "below/C.WAV": 0.5}.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        soundfile.write(file, babble(round(16000 * seconds)), 16000)
    (folder / "notes.txt").write_text("not a sound")
    (folder / "._a.flac").write_text("nor is this, of which a Mac leaves many")
    return folder
