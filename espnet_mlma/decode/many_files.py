"""Recognise many files, the short ones in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from espnet_mlma.audio import SAMPLE_RATE, DamagedAudio, audio_blocks
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.decode.transcript import Transcript
from espnet_mlma.errors import MlmaError

Outcome = Transcript | MlmaError


@dataclass(frozen=True)
class _Short:
    """A file no longer than an utterance: its samples, and the damage that ended them early."""

    samples: np.ndarray
    damage: DamagedAudio | None = None


def transcribe_files(
    recogniser: Recogniser, files: Iterable[str | Path | BinaryIO], *, vad: bool = False
) -> Iterator[Outcome]:
    """Recognise many files; those no longer than an utterance are encoded together.

    Args:
        recogniser: its `batch_seconds` is the most audio in a batch, padding included.
        files: paths, or open binary files; read as far as their results are taken.
        vad: as for `Recogniser.transcribe`; files are then encoded one by one.

    Yields:
        For each file, in order, its transcript, or the error that `Recogniser.transcribe` raises.
    """
    longest = None if vad else recogniser.acoustic.utterance_seconds
    batch: list[_Short | MlmaError] = []
    for file in files:
        short = None if longest is None else _read_short(file, longest)
        if short is not None and _fits(batch, short, recogniser.batch_seconds):
            batch.append(short)
            continue
        yield from _together(recogniser, batch)
        batch = [] if short is None else [short]
        if short is None:
            yield _alone(recogniser, file, vad)
    yield from _together(recogniser, batch)


def _fits(
    batch: Sequence[_Short | MlmaError], short: _Short | MlmaError, batch_seconds: float
) -> bool:
    lengths = [len(one.samples) for one in (*batch, short) if isinstance(one, _Short)]
    return len(lengths) * max(lengths, default=0) <= batch_seconds * SAMPLE_RATE


def _read_short(file: str | Path | BinaryIO, longest: float) -> _Short | MlmaError | None:
    """Read a file of at most `longest` seconds; None: it is longer, or can be read only once."""
    if not isinstance(file, str | Path):
        return None
    blocks: list[np.ndarray] = []
    try:
        for block in audio_blocks(file, longest):
            if blocks:
                return None
            blocks.append(block)
    except DamagedAudio as error:
        return _Short(blocks[0], error)
    except MlmaError as error:
        return error
    return _Short(blocks[0])


def _together(recogniser: Recogniser, batch: Sequence[_Short | MlmaError]) -> Iterator[Outcome]:
    sounds = [one.samples for one in batch if isinstance(one, _Short)]
    try:
        found: Iterator[Outcome] = iter(recogniser.transcribe_batch(sounds))
    except MlmaError:  # one of them is the cause
        found = (_of_samples(recogniser, samples) for samples in sounds)
    for one in batch:
        outcome = one if isinstance(one, MlmaError) else next(found)
        if isinstance(one, _Short) and one.damage and isinstance(outcome, Transcript):
            one.damage.transcript = outcome
            outcome = one.damage
        yield outcome


def _of_samples(recogniser: Recogniser, samples: np.ndarray) -> Outcome:
    try:
        return recogniser.transcribe_batch([samples])[0]
    except MlmaError as error:
        return error


def _alone(recogniser: Recogniser, file: str | Path | BinaryIO, vad: bool) -> Outcome:
    try:
        return recogniser.transcribe(file, vad=vad)
    except MlmaError as error:
        return error
