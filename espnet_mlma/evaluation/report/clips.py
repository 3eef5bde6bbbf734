"""Sound inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import soundfile

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.folder import locate, read_samples
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.report.data import Spoken

# Every browser plays MP3; Opus in Ogg came to Safari late. Half of libsndfile's scale of variable
# rates is about 43 kbit/s of speech at 16 kHz.
_MP3 = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE"}
_COMPRESSION = 0.5


@dataclass(frozen=True)
class Clip:
    """An utterance to listen to.

    Attributes:
        address: a `data:` URL; empty: there is none.
        missing: why there is none; empty: there is one.
    """

    address: str = ""
    missing: str = ""


def clips(spoken: Iterable[Spoken], dump: Path, limit: int) -> list[Clip]:
    """Compress utterances while there is room.

    Args:
        spoken: in order of importance.
        dump: the folder of their data folders.
        limit: bytes of all the addresses together.
    """
    found, room = [], limit
    for one in spoken:
        clip = read_clip(one, dump)
        if len(clip.address) > room:
            clip = Clip(missing="the page has no more room for audio; see --audio-mb")
        room -= len(clip.address)
        found.append(clip)
    return found


def read_clip(spoken: Spoken, dump: Path) -> Clip:
    """One utterance as MP3."""
    if spoken.audio is None:
        return Clip(missing="not in wav.scp")
    try:
        samples = read_samples(locate(spoken.audio, dump))
    except MlmaError:
        return Clip(missing="its audio cannot be read")
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, compression_level=_COMPRESSION, **_MP3)
    return Clip("data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii"))
