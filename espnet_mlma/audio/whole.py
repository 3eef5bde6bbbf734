"""A sound file whole: how long it is, and its samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from espnet_mlma.errors import MlmaError

SAMPLE_RATE = 16000
# An MP3 ends up to two of its frames before the length in its header: the encoder's padding.
MISSING_SECONDS = 0.1
# Beyond [-1, 1] by so much are integers that were made floats, and not loud sound.
_LOUDEST = 100.0


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Length of a sound file: `frames` samples per channel at `rate` Hz."""

    rate: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def probe(source: Path | BinaryIO, name: str = "") -> AudioInfo:
    """Read the length of a sound file from its header.

    A FLAC header promises samples that a cut-off file no longer has, so its last one is read.

    Args:
        source: a path, or an open binary file.
        name: what to call an open file in errors.

    Raises:
        MlmaError: the file is missing, empty or not readable sound.
    """
    try:
        with soundfile.SoundFile(source) as sound:
            info = AudioInfo(sound.samplerate, sound.frames)
            cut_off = sound.format == "FLAC" and info.frames > 0 and not _has_last_sample(sound)
    except (OSError, RuntimeError) as error:
        raise MlmaError(f"{name or source}: {_why_unreadable(source, error)}") from None
    if cut_off:
        raise MlmaError(f"{name or source}: cut off before its {info.frames} samples; copy it anew")
    if info.frames == 0:
        raise MlmaError(f"{name or source}: holds no samples")
    return info


def _has_last_sample(sound: soundfile.SoundFile) -> bool:
    try:
        sound.seek(sound.frames - 1)
        return len(sound.read(1)) == 1
    except RuntimeError:
        return False


def _why_unreadable(source: Path | BinaryIO, error: Exception) -> str:
    if isinstance(source, Path):
        if not source.is_file():
            return "no such file"
        if source.stat().st_size == 0:
            return "empty file"
    return f"not readable as sound ({getattr(error, 'error_string', error)})"


def read_audio(
    source: str | Path | BinaryIO,
    start: float | None = None,
    end: float | None = None,
    name: str = "",
) -> np.ndarray:
    """Read sound, or a span of it, as mono samples at 16 kHz.

    Args:
        source: a path, or an open binary file.
        start, end: the span in seconds; None for the beginning and the end of the file.
        name: what to call an open file in errors.

    Returns:
        (samples,) float32 in [-1, 1]; channels are averaged.

    Raises:
        MlmaError: the sound cannot be read, or the span is empty.
    """
    if isinstance(source, str):
        source = Path(source)
    name = name or str(source)
    try:
        with soundfile.SoundFile(source) as sound:
            first = round((start or 0.0) * sound.samplerate)
            last = sound.frames if end is None else round(end * sound.samplerate)
            last = min(last, sound.frames)
            if first >= last:
                raise MlmaError(f"{name}: no samples from {start or 0} s to {end or 'its end'}")
            sound.seek(first)
            samples = sound.read(last - first, dtype="float32", always_2d=True)
            source_rate = sound.samplerate
    except (OSError, RuntimeError) as error:
        raise MlmaError(f"{name}: {_why_unreadable(source, error)}") from None
    if len(samples) < last - first - MISSING_SECONDS * source_rate:
        raise MlmaError(f"{name}: cut off after {first + len(samples)} of {last} samples")
    mono = samples.mean(axis=1, dtype=np.float32)
    check_level(mono, name)
    if source_rate == SAMPLE_RATE:
        return mono
    return soxr.resample(mono, source_rate, SAMPLE_RATE)


def check_level(samples: np.ndarray, name: str) -> None:
    """Refuse what can be no sound.

    Args:
        samples: (samples,), which should lie in [-1, 1].
        name: of them, for the error.

    Raises:
        MlmaError: they reach far beyond, or are not all numbers.
    """
    peak = float(np.abs(samples).max(initial=0))
    if not np.isfinite(peak):
        raise MlmaError(f"{name}: has samples that are no numbers; write it anew")
    if peak > _LOUDEST:
        raise MlmaError(
            f"{name}: samples reach {peak:g}; divide them so that they lie between -1 and 1"
        )
