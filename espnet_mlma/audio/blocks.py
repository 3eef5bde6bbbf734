"""Sound of any format and rate as blocks of mono samples at 16 kHz, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import BinaryIO

import numpy as np
import soxr

from espnet_mlma.audio.channels import Downmix
from espnet_mlma.audio.containers import parts
from espnet_mlma.audio.files import DamagedAudio, Part, Source, name_of, seekable
from espnet_mlma.audio.readers import pieces
from espnet_mlma.errors import MlmaError

SAMPLE_RATE = 16000
# Beyond [-1, 1] by so much are integers that were made floats, and not loud sound.
_LOUDEST = 100.0


def audio_blocks(source: Source, seconds: float = 30.0, name: str = "") -> Iterator[np.ndarray]:
    """Read sound from its beginning to the end of the stream, block by block.

    Of a file that is damaged or cut off, what is there is given, and then the error is raised. Of
    files that were joined all are read. A missing end shows in wav, aiff, au, caf, w64, flac, ogg,
    mp4 and webm, and in an mp3 with a length in its header; others may end anywhere.

    Args:
        source: a path, or an open binary file; a pipe is first copied into a temporary file.
        seconds: length of a block; the last one may be shorter.
        name: what to call the source in errors.

    Yields:
        (samples,) float32 in [-1, 1] at 16 kHz, not empty; channels are averaged, and where they
        cancel, the loudest is taken with an `MlmaWarning`.

    Raises:
        DamagedAudio: after the last block, where some of the sound is missing.
        MlmaError: no such file, or no sound in it.
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
        raise MlmaError(f"{name}: holds no samples")


def mono_pieces(file: BinaryIO, part: Part, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a part as one channel, in pieces (rate, samples) of about a second or less.

    Several channels are read twice: first to see whether they cancel.

    Raises:
        MlmaError: as of `pieces`.
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
    """Refuse what can be no sound.

    Args:
        samples: (samples,), which should lie in [-1, 1].
        name: of them, for the error.

    Raises:
        MlmaError: they reach far beyond, or are not all numbers.
    """
    peak = float(np.abs(samples).max(initial=0))
    if not np.isfinite(peak):
        raise MlmaError(f"{name}: contains NaN or Inf; re-encode the file")
    if peak > _LOUDEST:
        raise MlmaError(
            f"{name}: samples reach {peak:g}; divide them so that they lie between -1 and 1"
        )


def resampled(pieces: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """Bring pieces (rate, samples) to 16 kHz, sample for sample as `soxr.resample` does the whole.

    The rate may change on the way, as where one file was appended to another.
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
    """The same samples, `size` at a time."""
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
    """The pieces up to an error, which is noted, so that those before it are still given on."""
    try:
        yield from pieces
    except MlmaError as error:
        faults.append(error)
