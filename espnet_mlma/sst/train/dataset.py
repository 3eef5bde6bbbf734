"""Segments as batches: audio laid down from its parts, turns merged by a latency multiplier.

What is in an epoch's batches follows from the seed and the epoch's number alone.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import batched, chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.config import DialogueConfig, TrainingConfig
from espnet_mlma.sst.data.records import Segment
from espnet_mlma.sst.data.shards import read_segments
from espnet_mlma.sst.data.sound import mix_at_offsets
from espnet_mlma.sst.data.trajectory import merge
from espnet_mlma.sst.grid import CHUNK_SAMPLES, CHUNK_VECTORS
from espnet_mlma.sst.llm.dialogue import NO_TARGET, Dialogue, Example
from espnet_mlma.sst.model import Batch

# Segments among which those of like length are put together.
_POOL = 512


@dataclass(frozen=True)
class Planned:
    """A batch to be.

    Attributes:
        number: in its epoch.
        multiplier: of its segments.
        segments: their indices.
    """

    number: int
    multiplier: int
    segments: tuple[int, ...]


def read_all(paths: Sequence[Path], dialogue: DialogueConfig) -> list[Segment]:
    """The segments of some files, each perhaps in shards.

    Args:
        paths: as of `shards.read_segments`.
        dialogue: names the languages that they must be of.

    Raises:
        MlmaError: as of `shards.read`; an id is there twice, a segment is of other languages, or
            there is none.
    """
    found: dict[str, Segment] = {}
    for path in paths:
        for segment in read_segments(path):
            if segment.id in found:
                raise MlmaError(f"{path}: segment '{segment.id}' is in another file too")
            if (segment.source, segment.target) != (dialogue.source, dialogue.target):
                raise MlmaError(
                    f"{path}: segment '{segment.id}' is {segment.source}-{segment.target}, the "
                    f"configuration's dialogue {dialogue.source}-{dialogue.target}"
                )
            found[segment.id] = segment
    if not found:
        raise MlmaError(f"{paths[0]}: holds no segments; run the stage that writes it")
    return list(found.values())


def sound_of(segment: Segment, multiplier: int = 1) -> np.ndarray:
    """The audio of a segment: its parts where they belong, zeros elsewhere and at the end.

    Args:
        segment: says where its parts are.
        multiplier: the length is a multiple of so many chunks.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        MlmaError: as of `mix_at_offsets`; it names the segment.
    """
    try:
        heard = mix_at_offsets(segment.parts, segment.chunks * CHUNK_SAMPLES)
    except MlmaError as error:
        raise MlmaError(f"segment '{segment.id}': {error}") from None
    return np.pad(heard, (0, segment.chunks_at(multiplier) * CHUNK_SAMPLES - len(heard)))


# What is to be learnt from a segment at a multiplier.
Examples = Callable[[Segment, int], Example]


def dialogues(dialogue_of: Callable[[int], Dialogue]) -> Examples:
    """Segments as dialogues whose turns are of as many chunks as the multiplier says.

    Args:
        dialogue_of: how turns of a multiplier are written.
    """
    dialogue_of = cache(dialogue_of)

    def example(segment: Segment, multiplier: int) -> Example:
        turns = merge(segment.turns, multiplier)
        return dialogue_of(multiplier).example(turns, multiplier * CHUNK_VECTORS)

    return example


class Batches:
    """The batches of a training set.

    Args:
        segments: all of it.
        example: what is to be learnt from each, such as `dialogues(model.dialogue)`.
        config: sizes, multipliers and seed.
    """

    def __init__(self, segments: Sequence[Segment], example: Examples, config: TrainingConfig):
        self.segments = segments
        self.example = example
        self.config = config

    def plan(self, epoch: int) -> list[Planned]:
        """The batches of an epoch, each segment in one of them, in the order of training.

        Raises:
            MlmaError: a segment has more tokens than a batch may have.
        """
        rng = random.Random(f"{self.config.seed} {epoch}")
        order = list(range(len(self.segments)))
        rng.shuffle(order)
        draw = partial(rng.randint, 1, self.config.largest_multiplier)
        if self.config.multiplier_per == "batch":
            found = list(self._filled(order, draw))
        else:
            groups: dict[int, list[int]] = {}
            for index in order:
                groups.setdefault(draw(), []).append(index)
            filled = (self._filled(group, lambda m=m: m) for m, group in groups.items())
            found = list(chain.from_iterable(filled))
        rng.shuffle(found)
        return [Planned(number, *batch) for number, batch in enumerate(found)]

    def _filled(
        self, order: Sequence[int], draw: Callable[[], int]
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Multiplier and segments of batches, each with as many segments as fit."""
        multiplier, longest, batch = 0, 0, []
        for index in self._alike_together(order):
            if batch:
                longest = max(longest, self._tokens(index, multiplier))
                count = len(batch) + 1
                tokens = count * longest
                if count <= self.config.batch_segments and tokens <= self.config.batch_tokens:
                    batch.append(index)
                    continue
                yield multiplier, tuple(batch)
            multiplier, batch = draw(), [index]
            longest = self._tokens(index, multiplier)
            if longest > self.config.batch_tokens:
                raise MlmaError(
                    f"segment '{self.segments[index].id}': {longest} tokens at multiplier "
                    f"{multiplier}; batch_tokens is {self.config.batch_tokens}: raise it, or build "
                    "segments of fewer chunks"
                )
        if batch:
            yield multiplier, tuple(batch)

    def _alike_together(self, order: Sequence[int]) -> Iterator[int]:
        """Segments of like length one after the other, but not always the same ones."""
        for pool in batched(order, _POOL):
            yield from sorted(pool, key=self._length)

    def _length(self, index: int) -> tuple[int, int]:
        segment = self.segments[index]
        return segment.chunks, sum(map(len, segment.turns))

    def _tokens(self, index: int, multiplier: int) -> int:
        return len(self.example(self.segments[index], multiplier).ids)

    def load(self, planned: Iterable[Planned]) -> Iterator[Batch]:
        """Batches in order; audio is read by threads before it is needed.

        Raises:
            MlmaError: as of `sound_of`.
        """
        waiting: deque[tuple[Planned, Future]] = deque()
        with ThreadPoolExecutor(self.config.read_ahead) as pool:
            try:
                for batch in planned:
                    waiting.append((batch, pool.submit(self._sounds, batch)))
                    if len(waiting) > self.config.read_ahead:
                        yield self._collated(*waiting.popleft())
                while waiting:
                    yield self._collated(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _sounds(self, planned: Planned) -> list[np.ndarray]:
        return [sound_of(self.segments[index], planned.multiplier) for index in planned.segments]

    def _collated(self, planned: Planned, sounds: Future[list[np.ndarray]]) -> Batch:
        # Not by the threads: a tokenizer is not made for several.
        examples = [
            self.example(self.segments[index], planned.multiplier) for index in planned.segments
        ]
        return collate(examples, [torch.from_numpy(s) for s in sounds.result()], planned.multiplier)


def collate(examples: Sequence[Example], speech: Sequence[Tensor], multiplier: int) -> Batch:
    """Segments as one batch.

    Args:
        examples: their dialogues.
        speech: (samples,) of each, a multiple of `multiplier` chunks.
        multiplier: of them all.
    """
    pad = partial(pad_sequence, batch_first=True)
    tokens = Example(
        pad([example.ids for example in examples]),
        pad([example.is_speech for example in examples]),
        pad([example.labels for example in examples], padding_value=NO_TARGET),
    )
    return Batch(pad(list(speech)), multiplier, tokens)
