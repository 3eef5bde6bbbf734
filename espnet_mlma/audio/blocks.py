"""Read audio of any format and rate in blocks of mono samples at 16 kHz, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import BinaryIO

import numpy as np
import soxr

from espnet_mlma.audio.channels import Downmix
from espnet_mlma.audio.containers import parts
from espnet_mlma.audio.files import DamagedAudio, FilePart, Source, name_of, seekable
from espnet_mlma.audio.readers import pieces
from espnet_mlma.errors import MlmaError

SAMPLE_RATE = 16000
# Samples beyond this are integers that were cast to float.
_LOUDEST = 100.0


def audio_blocks(source: Source, seconds: float = 30.0, name: str = "") -> Iterator[np.ndarray]:
    """Read audio block by block, in constant memory.

    A damaged or cut-off file yields the samples that it has, then raises the error. Joined files
    are all read. A missing end is detected in wav, aiff, au, caf, w64, flac, ogg, mp4 and webm, and
    in an mp3 with a length in its header, not in other formats.

    Args:
        source: a path, or an open binary file; a pipe is first copied to a temporary file.
        seconds: length of a block; the last one may be shorter.
        name: of the source, for errors.

    Yields:
        (samples,) float32 in [-1, 1] at 16 kHz, not empty. Channels are averaged; if they cancel,
        the loudest one is used, with an `MlmaWarning`.

    Raises:
        DamagedAudio: after the last block, if some of the audio is missing.
        MlmaError: the file does not exist, or has no audio.
    """
    name = name or name_of(source)
    size = max(1, round(seconds * SAMPLE_RATE))
    faults: list[MlmaError] = []
    is_empty = True
    with seekable(source, name) as file:
        mono = chain.from_iterable(
            _until_fault(mono_pieces(file, part, name), faults) for part in parts(file)
        )
        for block in _in_blocks(resampled(mono), size):
            try:
                check_level(block, name)
            except MlmaError as error:
                raise error if is_empty else DamagedAudio(str(error)) from None
            is_empty = False
            yield block
    if faults and is_empty:
        raise faults[0]
    if faults:
        raise DamagedAudio(str(faults[0]))
    if is_empty:
        raise MlmaError(f"{name}: has no samples")


def mono_pieces(file: BinaryIO, part: FilePart, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a part to mono, in pieces (rate, samples) of at most about a second.

    Multichannel audio is read twice: first to find out whether the channels cancel.

    Raises:
        MlmaError: as in `pieces`.
    """
    stream = pieces(file, part, name)
    first = next(stream, None)
    mix = Downmix()
    if first is not None and first[1].shape[1] > 1:
        stream.close()
        mix = Downmix.of(pieces(file, part, name))
        mix.warn(name)
        stream, first = pieces(file, part, name), None
    for rate, samples in stream if first is None else chain([first], stream):
        yield rate, mix(samples)


def check_level(samples: np.ndarray, name: str) -> None:
    """Check that samples are finite and not far beyond [-1, 1].

    Args:
        samples: (samples,).
        name: of the source, for the error.

    Raises:
        MlmaError: a sample is NaN or Inf, or beyond [-100, 100].
    """
    peak = float(np.abs(samples).max(initial=0))
    if not np.isfinite(peak):
        raise MlmaError(f"{name}: contains NaN or Inf; re-encode the file")
    if peak > _LOUDEST:
        raise MlmaError(f"{name}: samples reach {peak:g}; scale them to [-1, 1]")


def resampled(pieces: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """Resample pieces (rate, samples) to 16 kHz, exactly as `soxr.resample` does at once.

    The rate may change between pieces, as in joined files.
    """
    for rate, run in groupby(pieces, key=itemgetter(0)):
        if rate == SAMPLE_RATE:
            yield from map(itemgetter(1), run)
            continue
        stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1)
        for _, samples in run:
            yield stream.resample_chunk(samples)
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _in_blocks(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Regroup samples into blocks of `size`."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count >= size:
            joined = np.concatenate(held)
            whole = count // size * size
            yield from joined[:whole].reshape(-1, size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def _until_fault(
    pieces: Iterator[tuple[int, np.ndarray]], faults: list[MlmaError]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield pieces up to an error, which is stored in `faults` instead of raised."""
    try:
        yield from pieces
    except MlmaError as error:
        faults.append(error)
