"""Draw batches of similar length that balance languages and corpora.

P(language) ~ hours^a, P(corpus) ~ hours^b within the language, and the clips of a corpus in random
order, each once before any is drawn again. The drawn clips of an epoch are sorted by length, in
steps of 5 %, and cut into batches, which are shuffled. Everything follows from seed and epoch by
calculation, so that all ranks agree, and any epoch and any batch can be had without those before.

The order of a cell (one corpus of one language) continues in the next epoch. An epoch's share of a
cell is its expectation, rounded up or down so that the roundings cancel over epochs.

Source: Pratap et al., "Scaling speech technology to 1,000+ languages", 2023 (P ~ hours^a).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappush, heapreplace

import numpy as np

from espnet_mlma.data.clips import Clips
from espnet_mlma.errors import MlmaError

_STEP = 20  # the longest clip of a length class is at most 1/20 longer than its shortest
_BLOCK = 4096  # clips that are shuffled at once in a smaller cell, which is repeated
_DEVIATIONS = 4  # an epoch's clips fill too many batches once in 30,000 epochs
# What a random generator is for: each has seeds of its own.
_CELL, _PHASE, _EPOCH = range(3)


@dataclass(frozen=True)
class Options:
    """How to draw and to cut batches.

    Args:
        batch_bins: samples of a batch, padding included.
        language_exponent: a of P(language) ~ hours^a.
        corpus_exponent: b of P(corpus) ~ hours^b.
        iterations: batches of an epoch; None: as many as the clips of an epoch make.
        scaling: clips of an epoch relative to the set, if `iterations` is None.
        min_batch_size: clips of a batch, even if they exceed `batch_bins`.
        max_batch_size: clips of a batch.
        drop_last: leave out the batch of an epoch that is not full.
        seed: of the draw.
    """

    batch_bins: int
    language_exponent: float = 0.5
    corpus_exponent: float = 0.5
    iterations: int | None = None
    scaling: float = 1.0
    min_batch_size: int = 1
    max_batch_size: int | None = None
    drop_last: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_bins", "min_batch_size", "scaling"):
            if not 0 < getattr(self, name) < math.inf:
                raise MlmaError(f"{name}: {getattr(self, name)}; give a positive number")
        for name in ("iterations", "max_batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise MlmaError(f"{name}: {value}; give a positive number")
        for name in ("language_exponent", "corpus_exponent"):
            if not math.isfinite(getattr(self, name)):
                raise MlmaError(f"{name}: {getattr(self, name)}; give a number from 0 to 1")


class EpochBatches:
    """The batches of an epoch, as lists of ids; a batch sampler of PyTorch's DataLoader.

    Args:
        clips: the training set.
        epoch: number of the epoch.
        order: indices of the drawn clips, batch after batch; (drawn,).
        firsts: where each batch begins in `order`; (batches,).
        lasts: where each batch ends; (batches,).
        rank: which part of each batch to take.
        ranks: number of parts.
        start: batches that an interrupted epoch has used already.
    """

    def __init__(
        self,
        clips: Clips,
        epoch: int,
        order: np.ndarray,
        firsts: np.ndarray,
        lasts: np.ndarray,
        rank: int = 0,
        ranks: int = 1,
        start: int = 0,
    ):
        if not 0 <= start <= len(firsts):
            raise MlmaError(f"batch {start} of epoch {epoch}: it has {len(firsts)}; train it again")
        smallest = int((lasts - firsts).min(initial=ranks))
        if smallest < ranks:
            raise MlmaError(
                f"a batch of {smallest} clips for {ranks} processes; give more data or batch_bins"
            )
        self.clips, self.epoch, self.order = clips, epoch, order
        self.firsts, self.lasts = firsts[start:], lasts[start:]
        self.rank, self.ranks, self.start = rank, ranks, start

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, number: int) -> list[str]:
        return [self.clips.id(int(clip)) for clip in self.indices(number)]

    def __iter__(self) -> Iterator[list[str]]:
        return (self[number] for number in range(len(self)))

    def indices(self, number: int) -> np.ndarray:
        """Return the clips of a batch as indices, of all ranks or of this one."""
        return self.order[self.firsts[number] : self.lasts[number]][self.rank :: self.ranks]

    def state(self, used: int) -> dict[str, int | str]:
        """Describe the position in the epoch after a number of batches, for `BalancedDraw.resume`.

        Args:
            used: batches that were taken from this sequence.
        """
        return {"epoch": self.epoch, "start": self.start + used, "clips": self.clips.digest}


class BalancedDraw:
    """Draw the batches of any epoch from a training set.

    Args:
        clips: the training set.
        options: how to draw.
    """

    def __init__(self, clips: Clips, options: Options):
        self.clips, self.options = clips, options
        self.edges = _edges(int(clips.lengths.max()))
        counts, longest = self._classes()
        fitting = options.batch_bins // np.maximum(longest, 1)
        if options.max_batch_size is not None:
            fitting = np.minimum(fitting, options.max_batch_size)
        self.sizes = np.maximum(fitting, options.min_batch_size)
        self.probabilities = self._cell_probabilities()
        self.drawn = self._clips_of_an_epoch(counts)

    def __repr__(self) -> str:
        cells = len(self.clips.cells)
        of = f"{len(self.clips)} clips in {cells} cells, {self.drawn:.0f} an epoch"
        return f"{type(self).__name__}({of}, {self.options})"

    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Count the clips of each cell and length class; find the longest clip of each class."""
        classes, starts = len(self.edges), self.clips.starts
        counts, longest = [], np.zeros(classes, np.int64)
        for first, last in zip(starts, starts[1:], strict=False):
            lengths = self.clips.lengths[first:last]
            of = self._class_of(lengths)
            counts.append(np.bincount(of, minlength=classes))
            np.maximum.at(longest, of, lengths)
        return np.array(counts), longest

    def _class_of(self, lengths: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, lengths).astype(np.uint16)

    def _cell_probabilities(self) -> np.ndarray:
        starts, cells = self.clips.starts, self.clips.cells
        hours = np.array(
            [
                self.clips.lengths[first:last].sum(dtype=np.float64)
                for first, last in zip(starts, starts[1:], strict=False)
            ]
        )
        languages = np.unique([lang for lang, _ in cells], return_inverse=True)[1]
        of_language = np.bincount(languages, hours)
        language = (of_language / hours.sum()) ** self.options.language_exponent
        corpus = (hours / of_language[languages]) ** self.options.corpus_exponent
        corpus /= np.bincount(languages, corpus)[languages]
        # Machines may differ in the last digit of a power; ranks must not.
        return np.round((language / language.sum())[languages] * corpus, 12)

    def _clips_of_an_epoch(self, counts: np.ndarray) -> float:
        """Return how many clips an epoch draws: those that its batches hold."""
        wanted = self.options.iterations
        if wanted is None:
            return float(int(len(self.clips) * self.options.scaling))
        weights = self.probabilities @ (counts / counts.sum(axis=1, keepdims=True))
        per_clip = 1 / self.sizes
        mean = weights @ per_clip
        deviation = math.sqrt(max(weights @ per_clip**2 - mean**2, 0.0))
        used = self.sizes[weights > 0]
        full = wanted - (1 - 1 / used.max())  # the last batch may hold one clip
        margin = _DEVIATIONS * deviation
        root = (-margin + math.sqrt(margin**2 + 4 * mean * full)) / (2 * mean)
        return float(max(math.floor(root**2), wanted * self.options.min_batch_size))

    def epoch(self, epoch: int, *, rank: int = 0, ranks: int = 1, start: int = 0) -> EpochBatches:
        """Draw the batches of an epoch.

        Args:
            epoch: number of the epoch, from 1.
            rank: which part of each batch to take: every `ranks`-th clip.
            ranks: number of parts.
            start: batches that an interrupted epoch has used already.

        Raises:
            MlmaError: the epoch has fewer batches than `start`, or a batch fewer clips than ranks.
        """
        order = self._draw(epoch)
        generator = self._generator(_EPOCH, epoch)
        generator.shuffle(order)
        of = self._class_of(self.clips.lengths[order])
        order = order[np.argsort(of, kind="stable")]
        bounds = _cut(np.bincount(of, minlength=len(self.edges)), self.sizes, self.options)
        firsts, lasts = bounds[:-1], bounds[1:]
        if self.options.iterations is not None:
            firsts, lasts = _split(firsts, lasts, self.options)
        shuffled = generator.permutation(len(firsts))[: self.options.iterations]
        return EpochBatches(
            self.clips, epoch, order, firsts[shuffled], lasts[shuffled], rank, ranks, start
        )

    def resume(self, state: dict[str, int | str], *, rank: int = 0, ranks: int = 1) -> EpochBatches:
        """Continue an epoch with the batch after a position.

        Args:
            state: result of `EpochBatches.state`.
            rank: which part of each batch to take.
            ranks: number of parts.

        Raises:
            MlmaError: the state is of other clips, or beyond the end of the epoch.
        """
        if state["clips"] != self.clips.digest:
            raise MlmaError(f"epoch {state['epoch']} began with other clips; train it again")
        return self.epoch(int(state["epoch"]), rank=rank, ranks=ranks, start=int(state["start"]))

    def _draw(self, epoch: int) -> np.ndarray:
        """Return the clips of an epoch as indices, cell after cell."""
        phases = self._generator(_PHASE).random(len(self.probabilities))
        share = self.probabilities * self.drawn
        before = np.floor(share * (epoch - 1) + phases).astype(np.int64)
        after = np.floor(share * epoch + phases).astype(np.int64)
        parts = [
            self._of_cell(cell, first, last)
            for cell, (first, last) in enumerate(zip(before, after, strict=True))
        ]
        return np.concatenate(parts)

    def _of_cell(self, cell: int, first: int, last: int) -> np.ndarray:
        """Return a part of the endless sequence of a cell's clips, in which each pass has all."""
        start, end = self.clips.starts[cell : cell + 2]
        size = int(end - start)
        passes = -(-_BLOCK // size)
        block = passes * size
        clips = np.tile(np.arange(start, end, dtype=np.int32), (passes, 1))
        parts = [np.empty(0, np.int32)]
        for number in range(first // block, -(-last // block)):
            generator = self._generator(_CELL, cell, number)
            shuffled = generator.permuted(clips, axis=1) if passes > 1 else clips[0].copy()
            if passes == 1:
                generator.shuffle(shuffled)
            low, high = max(first - number * block, 0), min(last - number * block, block)
            parts.append(shuffled.ravel()[low:high])
        return np.concatenate(parts)

    def _generator(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.options.seed, *purpose])


def _edges(longest: int) -> np.ndarray:
    """Return the longest length of each class, in whole numbers on every machine."""
    edges = [1]
    while edges[-1] < longest:
        edges.append(max(edges[-1] + 1, edges[-1] * (_STEP + 1) // _STEP))
    return np.array(edges)


def _cut(counts: np.ndarray, sizes: np.ndarray, options: Options) -> np.ndarray:
    """Cut clips that are sorted by length class into batches.

    Args:
        counts: clips of each class.
        sizes: clips that a batch holds if the longest is of this class.
        options: how to treat the last batch.

    Returns:
        Bounds of the batches; (batches + 1,).
    """
    bounds, first, end = [np.zeros(1, np.int64)], 0, 0
    size = 1
    for count, size in zip(counts.tolist(), sizes.tolist(), strict=True):
        end += count
        full = (end - first) // size if count else 0
        bounds.append(first + size * np.arange(1, full + 1))
        first += full * size
    cuts = np.concatenate(bounds)
    left = end - first
    if left == 0 or (options.drop_last and first):
        return cuts
    if left < options.min_batch_size and len(cuts) > 1:
        # The last full batch shares its clips with what is left, or takes it.
        both = end - cuts[-2]
        if both >= 2 * options.min_batch_size:
            cuts[-1] = cuts[-2] + both // 2
        else:
            cuts = cuts[:-1]
    return np.append(cuts, end)


def _split(
    firsts: np.ndarray, lasts: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Split the batches of most clips until an epoch has its number of batches."""
    lacking = (options.iterations or 0) - len(firsts)
    if lacking <= 0:
        return firsts, lasts
    heap = [
        (int(first - last), int(first), int(last))
        for first, last in zip(firsts, lasts, strict=True)
    ]
    heapify(heap)
    for _ in range(lacking):
        size, first, last = heap[0]
        if -size < 2 * options.min_batch_size:
            break
        middle = (first + last) // 2
        heapreplace(heap, (first - middle, first, middle))
        heappush(heap, (middle - last, middle, last))
    heap.sort(key=lambda batch: batch[1])
    return np.array([first for _, first, _ in heap]), np.array([last for *_, last in heap])
