"""Batch segments: mix their audio, and merge turns by a latency multiplier.

The batches of an epoch depend only on the seed and the epoch's number.
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
from espnet_mlma.sst.model import SegmentBatch

# Segments are sorted by length within pools of this size.
_POOL = 512


@dataclass(frozen=True)
class PlannedBatch:
    """Describe a batch that is not loaded yet.

    Attributes:
        number: position in its epoch.
        multiplier: latency multiplier of all its segments.
        segments: indices of the segments.
    """

    number: int
    multiplier: int
    segments: tuple[int, ...]


def read_all(paths: Sequence[Path], dialogue: DialogueConfig) -> list[Segment]:
    """Read segments from files or sharded files.

    Args:
        paths: see `shards.read_segments`.
        dialogue: source and target language that every segment must have.

    Raises:
        MlmaError: duplicate id, wrong language, no segments, or an error of `shards.read`.
    """
    found: dict[str, Segment] = {}
    for path in paths:
        for segment in read_segments(path):
            if segment.id in found:
                raise MlmaError(
                    f"{path}: segment '{segment.id}' is in another file too; give each file once"
                )
            if (segment.source, segment.target) != (dialogue.source, dialogue.target):
                raise MlmaError(
                    f"{path}: segment '{segment.id}' is {segment.source}-{segment.target}; the "
                    f"configuration's dialogue is {dialogue.source}-{dialogue.target}"
                )
            found[segment.id] = segment
    if not found:
        raise MlmaError(f"{paths[0]}: no segments; run the stage that writes it")
    return list(found.values())


def sound_of(segment: Segment, multiplier: int = 1) -> np.ndarray:
    """Read the audio of a segment: its parts at their offsets, zeros elsewhere.

    Args:
        segment: names audio files and offsets.
        multiplier: latency multiplier; the length is padded to a multiple of so many chunks.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        MlmaError: the audio cannot be read; the message names the segment.
    """
    try:
        heard = mix_at_offsets(segment.parts, segment.chunks * CHUNK_SAMPLES)
    except MlmaError as error:
        raise MlmaError(f"segment '{segment.id}': {error}") from None
    return np.pad(heard, (0, segment.chunks_at(multiplier) * CHUNK_SAMPLES - len(heard)))


# Makes the training example of a segment at a latency multiplier.
Examples = Callable[[Segment, int], Example]


def dialogues(dialogue_of: Callable[[int], Dialogue]) -> Examples:
    """Return a function that turns segments into dialogues of `multiplier` chunks per turn.

    Args:
        dialogue_of: maps a latency multiplier to the format of its dialogue.
    """
    dialogue_of = cache(dialogue_of)

    def example(segment: Segment, multiplier: int) -> Example:
        turns = merge(segment.turns, multiplier)
        return dialogue_of(multiplier).example(turns, multiplier * CHUNK_VECTORS)

    return example


class Batches:
    """Plan and load the batches of a training set.

    Args:
        segments: the training set.
        example: makes a segment's training example, such as `dialogues(model.dialogue)`.
        config: batch sizes, multipliers and seed.
    """

    def __init__(self, segments: Sequence[Segment], example: Examples, config: TrainingConfig):
        self.segments = segments
        self.example = example
        self.config = config

    def plan(self, epoch: int) -> list[PlannedBatch]:
        """Return the batches of an epoch in training order; each segment is in exactly one.

        Raises:
            MlmaError: a segment has more tokens than `batch_tokens`.
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
        return [PlannedBatch(number, *batch) for number, batch in enumerate(found)]

    def _filled(
        self, order: Sequence[int], draw: Callable[[], int]
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Fill batches greedily; yield the multiplier and segment indices of each."""
        multiplier, longest, batch = 0, 0, []
        for index in self._sort_in_pools(order):
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
                    f"{multiplier}; batch_tokens is {self.config.batch_tokens}; raise it, or build "
                    "segments of fewer chunks"
                )
        if batch:
            yield multiplier, tuple(batch)

    def _sort_in_pools(self, order: Sequence[int]) -> Iterator[int]:
        """Yield indices sorted by length within shuffled pools, so that batches differ by epoch."""
        for pool in batched(order, _POOL):
            yield from sorted(pool, key=self._length)

    def _length(self, index: int) -> tuple[int, int]:
        segment = self.segments[index]
        return segment.chunks, sum(map(len, segment.turns))

    def _tokens(self, index: int, multiplier: int) -> int:
        return len(self.example(self.segments[index], multiplier).ids)

    def load(self, planned: Iterable[PlannedBatch]) -> Iterator[SegmentBatch]:
        """Load batches in order; threads read audio ahead.

        Raises:
            MlmaError: audio cannot be read; the message names the segment.
        """
        waiting: deque[tuple[PlannedBatch, Future]] = deque()
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

    def _sounds(self, planned: PlannedBatch) -> list[np.ndarray]:
        return [sound_of(self.segments[index], planned.multiplier) for index in planned.segments]

    def _collated(self, planned: PlannedBatch, sounds: Future[list[np.ndarray]]) -> SegmentBatch:
        # In the main thread: tokenizers are not thread-safe.
        examples = [
            self.example(self.segments[index], planned.multiplier) for index in planned.segments
        ]
        return collate(examples, [torch.from_numpy(s) for s in sounds.result()], planned.multiplier)


def collate(examples: Sequence[Example], speech: Sequence[Tensor], multiplier: int) -> SegmentBatch:
    """Pad segments to one batch.

    Args:
        examples: training example of each segment.
        speech: audio of each segment, (samples,) at 16 kHz, a multiple of `multiplier` chunks.
        multiplier: latency multiplier of all segments.
    """
    pad = partial(pad_sequence, batch_first=True)
    tokens = Example(
        pad([example.ids for example in examples]),
        pad([example.is_speech for example in examples]),
        pad([example.labels for example in examples], padding_value=NO_TARGET),
    )
    return SegmentBatch(pad(list(speech)), multiplier, tokens)
