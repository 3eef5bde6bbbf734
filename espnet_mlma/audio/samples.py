"""Convert samples in memory, and read raw PCM from a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from espnet_mlma.audio.blocks import check_level, resampled
from espnet_mlma.audio.containers import kind_of
from espnet_mlma.errors import MlmaError


def as_samples(audio) -> np.ndarray:
    """Convert samples in memory to float32; integers are scaled by the range of their type.

    Args:
        audio: (time,) at 16 kHz, an array or a tensor on any device.

    Returns:
        (time,) float32.

    Raises:
        MlmaError: `audio` is something else, far beyond [-1, 1], or has NaN or Inf.
    """
    if hasattr(audio, "detach"):
        audio = audio.detach().cpu()
    try:
        samples = np.asarray(audio)
    except (TypeError, ValueError):
        samples = np.empty(0, object)
    # The range of Python's own integers is unknown.
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
    """Read raw 16-bit little-endian PCM, and yield samples as soon as they arrive.

    Resampling from another rate adds a delay of about 35 ms, from 8 kHz up to 100 ms. An incomplete
    last sample is dropped.

    Args:
        stream: of one channel.
        rate: of the samples in Hz.
        seconds: longest block; a block is shorter if no more samples have arrived.

    Yields:
        (samples,) float32 in [-1, 1] at 16 kHz, not empty.

    Raises:
        MlmaError: the stream is an audio file, whose header would be read as samples.
    """
    pieces = ((rate, samples) for samples in _read_pcm(stream, rate, round(seconds * rate)))
    return (block for block in resampled(pieces) if len(block))


def _read_pcm(stream: BinaryIO, rate: int, size: int) -> Iterator[np.ndarray]:
    """Yield samples as they arrive, at most `size` at once."""
    read = getattr(stream, "read1", stream.read)  # read would wait for all bytes
    wanted = 2 * max(1, size)
    carried = b""
    kind = None  # None: the bytes so far may be a header
    while data := read(max(2, wanted - len(carried))):
        data = carried + data
        if kind is None:
            kind = _check_raw(data, rate)
        whole = 0 if kind is None else len(data) // 2 * 2
        carried = data[whole:]
        yield from _floats(data[:whole], wanted)
    if kind is None:
        _check_raw(carried, rate, is_all=True)
        yield from _floats(carried[: len(carried) // 2 * 2], wanted)


def _check_raw(data: bytes, rate: int, is_all: bool = False) -> str | None:
    kind = kind_of(data, is_all)
    if kind:
        raise MlmaError(
            f"stdin is a {kind} file, not raw PCM; convert it with "
            f"ffmpeg -i FILE -f s16le -ac 1 -ar {rate} -, or give the file to `mlma transcribe`"
        )
    return kind


def _floats(data: bytes, size: int) -> Iterator[np.ndarray]:
    for first in range(0, len(data), size):
        yield np.frombuffer(data[first : first + size], "<i2") / np.float32(32768)
