"""Spans of sound files laid down where they belong."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from espnet_mlma.audio import read_audio
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Part
from espnet_mlma.sst.grid import SAMPLE_RATE

# What a file may lack of a part, or a part go beyond its end: an MP3's padding.
_MISSING_SAMPLES = SAMPLE_RATE // 10


def laid_down(parts: Iterable[Part], samples: int) -> np.ndarray:
    """The sound of some parts, zeros where there is none.

    Args:
        parts: what is heard when.
        samples: length of it all.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        MlmaError: a file is missing, damaged or too short, or a part goes beyond the end.
    """
    found = np.zeros(samples, np.float32)
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
        place = found[at:]
        place[: len(piece)] += piece[: len(place)]
    return found
