"""Read the length of an audio file, and its samples whole or of a span."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile

from espnet_mlma.audio.blocks import audio_blocks, check_level, resampled
from espnet_mlma.audio.channels import Downmix
from espnet_mlma.audio.containers import parts
from espnet_mlma.audio.files import DamagedAudio, FilePart, PartFile, Source, name_of, seekable
from espnet_mlma.audio.readers import (
    MISSING_SECONDS,
    Piece,
    by_libsndfile,
    check_rate,
    open_with_libsndfile,
    opened_with_ffmpeg,
    pieces,
)
from espnet_mlma.errors import MlmaError

# Per second of audio, in any format.
_FEWEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Length of an audio file: `frames` samples per channel at `rate` Hz."""

    rate: int
    frames: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate


def probe(source: Path | BinaryIO, name: str = "") -> AudioInfo:
    """Find the length of an audio file, without decoding it if its header can be trusted.

    Frames of an MP3 are counted. The header of a FLAC may declare samples that are cut off, so the
    last one is read.

    Args:
        source: a path, or an open binary file.
        name: of an open file, for errors.

    Returns:
        The length, at the rate of the first of joined files.

    Raises:
        MlmaError: the file is missing, empty, cut off or not readable as audio.
    """
    name = name or name_of(source)
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise MlmaError(f"{name}: not a file")  # a named pipe may have no writer
    with seekable(source, name) as file:
        found = [_info(file, part, name) for part in parts(file, is_quick=True)]
    rate = found[0].rate
    frames = round(sum(info.seconds for info in found) * rate)
    if frames == 0:
        raise MlmaError(f"{name}: has no samples")
    return AudioInfo(rate, frames)


def _info(file: BinaryIO, part: FilePart, name: str) -> AudioInfo:
    info = _counted(file, part, name)
    whole = max(part.declared or 0.0, info.seconds * (1 + part.missing))
    if part.is_cut or info.seconds < whole - MISSING_SECONDS:
        raise DamagedAudio.at(name, info.seconds, None if part.is_cut else whole)
    return info


def _counted(file: BinaryIO, part: FilePart, name: str) -> AudioInfo:
    if part.seconds is not None:
        return AudioInfo(part.rate, round(part.seconds * part.rate))
    view = PartFile(file, part)
    sound = open_with_libsndfile(view)
    if sound is not None and sound.format != "MP3":
        with sound:
            check_rate(sound.samplerate, name)
            info = AudioInfo(sound.samplerate, sound.frames)
            if info.seconds * _FEWEST_BYTES > part.end - part.start:
                info = AudioInfo(info.rate, 0)  # impossible: count the samples below
            elif sound.format != "FLAC" or not info.frames:
                return info
            if info.frames and _has_last_sample(sound) and view.tell() == view.seek(0, 2):
                return info
    # The end is missing, more data follows, or no header has the length.
    rate, seconds = 1, 0.0
    for one in parts(file) if part.is_ffmpeg else [part]:
        for rate, samples in pieces(file, one, name):
            seconds += len(samples) / rate
    return AudioInfo(rate, round(seconds * rate))


def _has_last_sample(sound: soundfile.SoundFile) -> bool:
    try:
        sound.seek(sound.frames - 1)
        return len(sound.read(1)) == 1
    except RuntimeError:
        return False


def read_audio(
    source: Source,
    start: float | None = None,
    end: float | None = None,
    name: str = "",
) -> np.ndarray:
    """Read audio, or a span of it, as mono samples at 16 kHz.

    Args:
        source: a path, or an open binary file.
        start, end: the span in seconds; None for the beginning and the end of the file.
        name: of an open file, for errors.

    Returns:
        (samples,) float32 in [-1, 1]. Channels are averaged; if they cancel, the loudest one is
        used, with an `MlmaWarning`.

    Raises:
        MlmaError: the audio is unreadable or cut off, or the span is empty.
    """
    name = name or name_of(source)
    if not start and end is None:
        return np.concatenate(list(audio_blocks(source, name=name)))
    with seekable(source, name) as file:
        found = list(_span(file, start or 0.0, end, name))
    if not found:
        raise MlmaError(f"{name}: no samples from {start or 0} s to {end or 'its end'}")
    mix = Downmix.of(found)
    mix.warn(name)
    samples = np.concatenate(list(resampled((rate, mix(piece)) for rate, piece in found)))
    check_level(samples, name)
    return samples


def _span(file: BinaryIO, start: float, end: float | None, name: str) -> Iterator[Piece]:
    """Yield the pieces of a span; libsndfile can seek, FFmpeg decodes from the beginning."""
    found = parts(file)
    sound = open_with_libsndfile(PartFile(file, found[0])) if len(found) == 1 else None
    if sound is None:
        yield from _decoded_span(file, found, start, end, name)
        return
    with sound:
        check_rate(sound.samplerate, name)
        first, last = (
            sound.frames if at is None else round(at * sound.samplerate) for at in (start, end)
        )
        is_inside = first <= last <= sound.frames
        if is_inside or not (found[0].is_ffmpeg or sound.format == "MP3"):
            yield from by_libsndfile(sound, name, first, min(last, sound.frames))
            if last > sound.frames and (found[0].missing or found[0].is_cut):
                raise DamagedAudio.at(name, sound.frames / sound.samplerate)
            return
    yield from _decoded_span(file, found, start, end, name)


def _decoded_span(
    file: BinaryIO, found: list[FilePart], start: float, end: float | None, name: str
) -> Iterator[Piece]:
    """Yield the pieces of a span, decoded from the beginning."""
    at = 0.0
    for part in found:
        for rate, samples in pieces(file, part, name):
            first = max(0, round((start - at) * rate))
            last = len(samples) if end is None else max(0, round((end - at) * rate))
            at += len(samples) / rate
            if len(kept := samples[first:last]):
                yield rate, kept
            if end is not None and at >= end:
                return


def duration_of(source: Source) -> float | None:
    """Return the length by the header, in seconds, for progress bars; the header may be wrong.

    Args:
        source: a path, or an open binary file, whose position is reset to the beginning.

    Returns:
        None if the header has no length, and for a pipe, which is not read.

    Raises:
        MlmaError: the file does not exist, or has no audio.
    """
    is_path = isinstance(source, str | Path)
    if Path(source).is_fifo() if is_path else not source.seekable():
        return None
    name = name_of(source)
    with seekable(source, name) as file:
        lengths = [_header_seconds(file, part, name) for part in parts(file)]
        file.seek(0)
    known = [seconds for seconds in lengths if seconds is not None]
    return sum(known) if len(known) == len(lengths) else None


def _header_seconds(file: BinaryIO, part: FilePart, name: str) -> float | None:
    if part.seconds is not None:
        return part.seconds
    sound = open_with_libsndfile(PartFile(file, part))
    if sound is not None:
        with sound:
            return sound.frames / max(1, sound.samplerate)
    with opened_with_ffmpeg(file, part, name) as (container, stream):
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        return None if container.duration is None else container.duration / av.time_base
