"""Audio embedded in the page."""

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
from espnet_mlma.evaluation.score.utterances import ScoredUtterance

# All browsers play MP3; old versions of Safari do not play Opus in Ogg. A compression level of 0.5
# is about 43 kbit/s for speech at 16 kHz.
_COMPRESSION = 0.5


@dataclass(frozen=True)
class Clip:
    """Audio of an utterance.

    Attributes:
        address: `data:` URL; empty: no audio.
        missing: reason for no audio; empty: there is audio.
    """

    address: str = ""
    missing: str = ""


def read_clips(utterances: Iterable[ScoredUtterance], dump: Path, limit: int) -> list[Clip]:
    """Compress the audio of utterances up to a limit.

    Args:
        utterances: in order of importance.
        dump: contains their data folders.
        limit: bytes of all addresses together.
    """
    found, room = [], limit
    for utterance in utterances:
        clip = read_clip(utterance, dump)
        if len(clip.address) > room:
            clip = Clip(missing="the page has no more room for audio; see --audio-mb")
        room -= len(clip.address)
        found.append(clip)
    return found


def read_clip(utterance: ScoredUtterance, dump: Path) -> Clip:
    """Compress the audio of an utterance as MP3."""
    if utterance.audio is None:
        return Clip(missing="not in wav.scp")
    try:
        samples = read_samples(locate(utterance.audio, dump))
    except MlmaError:
        return Clip(missing="its audio cannot be read")
    file = io.BytesIO()
    soundfile.write(
        file,
        samples,
        SAMPLE_RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="VARIABLE",
        compression_level=_COMPRESSION,
    )
    return Clip("data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii"))
