"""Mix spans of sound files into one signal."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from espnet_mlma.audio import read_audio
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Part
from espnet_mlma.sst.grid import SAMPLE_RATE

# Tolerance for MP3 padding: a file may be this much shorter or longer than its span.
_MISSING_SAMPLES = SAMPLE_RATE // 10


def mix_at_offsets(parts: Iterable[Part], samples: int) -> np.ndarray:
    """Add spans of sound files at their offsets; the rest is silence.

    Args:
        parts: spans with their offsets in the result.
        samples: length of the result.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        MlmaError: a file is missing, damaged or too short, or a span exceeds the result.
    """
    mixture = np.zeros(samples, np.float32)
    for part in parts:
        piece = read_audio(part.audio, part.start, part.end)
        wanted, at = (part.end - part.start) * SAMPLE_RATE, round(part.at * SAMPLE_RATE)
        if len(piece) < wanted - _MISSING_SAMPLES:
            missing = (wanted - len(piece)) / SAMPLE_RATE
            raise MlmaError(f"{part.audio} ends {missing:.1f} s before {part.end} s; copy it again")
        if at + len(piece) > samples + _MISSING_SAMPLES:
            raise MlmaError(
                f"{part.audio} at {part.at} s goes beyond its {samples / SAMPLE_RATE:.2f} s; "
                "run the stage before again"
            )
        place = mixture[at:]
        place[: len(piece)] += piece[: len(place)]
    return mixture
