"""Samples in memory, and bare samples from a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from espnet_mlma.audio.blocks import check_level, resampled
from espnet_mlma.audio.containers import kind_of
from espnet_mlma.errors import MlmaError


def as_samples(audio) -> np.ndarray:
    """Samples in memory as (time,) float32; whole numbers are divided by their type's range.

    Args:
        audio: one channel at 16 kHz, an array or a tensor on any device.

    Raises:
        MlmaError: it is something else, or reaches far beyond [-1, 1], or is not all numbers.
    """
    if hasattr(audio, "detach"):
        audio = audio.detach().cpu()
    try:
        samples = np.asarray(audio)
    except (TypeError, ValueError):
        samples = np.empty(0, object)
    # Whole numbers that are Python's own do not say what range they have.
    if samples.dtype.kind not in ("fi" if hasattr(audio, "dtype") else "f"):
        kind = type(audio).__name__ if samples.dtype.kind in "OSU" else samples.dtype
        raise MlmaError(
            f"audio is {kind}; give a path, an open file, or one channel of samples at 16 kHz, "
            "floats between -1 and 1 or signed integers"
        )
    if samples.ndim != 1:
        raise MlmaError(f"samples have shape {samples.shape}; give one channel, (time,)")
    if samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
    samples = samples.astype(np.float32)
    check_level(samples, "audio")
    return samples


def pcm_blocks(stream: BinaryIO, rate: int, seconds: float = 0.1) -> Iterator[np.ndarray]:
    """Read bare 16-bit little-endian samples, and give them on as soon as they are there.

    Resampling from another rate holds back some 35 ms, from 8 kHz up to 100 ms. A last sample of
    which not all bytes came is dropped.

    Args:
        stream: of one channel.
        rate: of the samples in Hz.
        seconds: most sound in a block; one is shorter when no more is there.

    Yields:
        (samples,) float32 in [-1, 1] at 16 kHz, not empty.

    Raises:
        MlmaError: the stream begins as a sound file does: its header would be heard as samples.
    """
    pieces = ((rate, samples) for samples in _read_pcm(stream, rate, round(seconds * rate)))
    return (block for block in resampled(pieces) if len(block))


def _read_pcm(stream: BinaryIO, rate: int, size: int) -> Iterator[np.ndarray]:
    """Samples as they arrive, `size` at most."""
    read = getattr(stream, "read1", stream.read)  # read waits until it has all it was asked for
    wanted = 2 * max(1, size)
    carried = b""
    kind = None  # while the bytes so far may be the header of a file
    while data := read(max(2, wanted - len(carried))):
        data = carried + data
        if kind is None:
            kind = _bare(data, rate)
        whole = 0 if kind is None else len(data) // 2 * 2
        carried = data[whole:]
        yield from _floats(data[:whole], wanted)
    if kind is None:
        _bare(carried, rate, is_all=True)
        yield from _floats(carried[: len(carried) // 2 * 2], wanted)


def _bare(data: bytes, rate: int, is_all: bool = False) -> str | None:
    kind = kind_of(data, is_all)
    if kind:
        raise MlmaError(
            f"stdin is a {kind} file, not bare samples; convert it on the way: "
            f"ffmpeg -i FILE -f s16le -ac 1 -ar {rate} -, or name the file to `mlma transcribe`"
        )
    return kind


def _floats(data: bytes, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(data), size):
        yield np.frombuffer(data[first : first + size], "<i2") / np.float32(32768)
