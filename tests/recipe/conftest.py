from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.corpora.utterance import AudioFile, Utterance
from espnet_mlma.corpora.writer import write_set

WORDS = ["good morning", "buona sera", "guten tag", "hasta luego", "goede nacht", "bonne nuit"]


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """Make (samples,) float sound that swells and fades."""

    def make(seconds: float, rate: int = 16000, pitch: float = 220.0) -> np.ndarray:
        time = np.arange(round(seconds * rate)) / rate
        return 0.3 * np.sin(2 * np.pi * pitch * time) * np.sin(2 * np.pi * 3 * time)

    return make


@pytest.fixture
def make_data(tmp_path: Path, tone) -> Callable[..., Path]:
    """Make a data folder as stage 1 does, of `count` short FLAC files by two speakers."""

    def make(count: int = 6, seconds: float = 1.0) -> Path:
        audio = tmp_path / "audio"
        audio.mkdir(exist_ok=True)
        utterances = []
        for number in range(count):
            path = audio / f"{number:04d}.flac"
            soundfile.write(path, tone(seconds, pitch=100 + number), 16000)
            speaker = f"mini_en_s{number % 2}"
            text = WORDS[number % len(WORDS)]
            utterances.append(
                Utterance(f"{speaker}-{number:04d}", AudioFile(path), text, speaker, "en")
            )
        write_set(tmp_path / "data" / "train", utterances, nj=1)
        return tmp_path / "data" / "train"

    return make
