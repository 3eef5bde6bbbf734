"""Find clips that have audio of held-out ones, by their fingerprints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from espnet_mlma.data import fingerprint, tables
from espnet_mlma.data.fingerprint import BITS, NO_WORD, Fingerprints
from espnet_mlma.errors import MlmaError

_MADE_BY = "stage 3"
_FEWEST_FRAMES = 48  # that two clips must share, 0.77 s; fewer agree by chance
_WIDTH = 128  # frames that are compared at most, 2 s
_GLANCE, _GLANCE_LIMIT = 16, 0.3  # frames of a first comparison, and its share of different bits
_LIMIT = 0.17  # share of different bits, between copies and other readings by one speaker
_COMMON = 1000  # words that occur more often in the index are not looked up
_LOOKED_UP = 1 << 16  # frames at once
_COMPARED = 1 << 14  # pairs of places at once


class HeldOutAudio:
    """An index of the fingerprints of dev and test clips."""

    def __init__(self, held_out: Iterable[Fingerprints]) -> None:
        """Index the clips.

        Args:
            held_out: their fingerprints.
        """
        parts = list(held_out)
        self._ids = [id_ for part in parts for id_ in part.ids]
        self._words = np.concatenate([np.zeros(0, np.uint32), *(part.words for part in parts)])
        self._clips = _Clips(np.concatenate([np.zeros(0, np.int64), *(p.frames for p in parts)]))
        places = np.flatnonzero(self._words != NO_WORD)
        self._places = places[np.argsort(self._words[places], kind="stable")]
        self._sorted = self._words[self._places]

    def matches(self, found: Fingerprints) -> dict[str, str]:
        """Find the clips that share audio with held-out ones.

        Args:
            found: fingerprints of training clips.

        Returns:
            Id of each clip that matches -> id of the held-out clip that it agrees with best.
        """
        clips = _Clips(found.frames)
        best: dict[int, tuple[float, int]] = {}
        for here, there in self._candidates(found.words):
            # A short comparison costs less, and leaves few candidates.
            errors, frames = self._compare(found.words, clips, here, there, _GLANCE)
            is_close = errors < _GLANCE_LIMIT * BITS * frames
            here, there = here[is_close], there[is_close]
            errors, frames = self._compare(found.words, clips, here, there, _WIDTH)
            rates = errors / np.maximum(BITS * frames, 1)
            for place in np.flatnonzero(rates < _limit(frames)):
                clip, held = int(clips.of[here[place]]), int(self._clips.of[there[place]])
                best[clip] = min(best.get(clip, (1.0, 0)), (float(rates[place]), held))
        return {found.ids[clip]: self._ids[held] for clip, (_, held) in sorted(best.items())}

    def _candidates(self, words: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield frames of clips, and frames of held-out clips with the same words."""
        asked = np.flatnonzero(words != NO_WORD)
        for start in range(0, len(asked), _LOOKED_UP):
            part = asked[start : start + _LOOKED_UP]
            first = np.searchsorted(self._sorted, words[part], side="left")
            counts = np.searchsorted(self._sorted, words[part], side="right") - first
            counts[counts > _COMMON] = 0
            here = np.repeat(part, counts)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            there = self._places[np.repeat(first, counts) + within]
            for cut in range(0, len(here), _COMPARED):
                yield here[cut : cut + _COMPARED], there[cut : cut + _COMPARED]

    def _compare(
        self, words: np.ndarray, clips: _Clips, here: np.ndarray, there: np.ndarray, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count different bits, and compared frames, around places with the same word."""
        around = np.arange(-width // 2, width // 2)
        low = np.maximum(clips.start(here) - here, self._clips.start(there) - there)
        high = np.minimum(clips.end(here) - here, self._clips.end(there) - there)
        # The window moves inwards at the end of a clip.
        shift = np.clip(0, low + width // 2, np.maximum(high - width // 2, low + width // 2))
        around = around + shift[:, None]
        is_inside = (around >= low[:, None]) & (around < high[:, None])
        around = np.where(is_inside, around, 0)
        ours, theirs = words[here[:, None] + around], self._words[there[:, None] + around]
        is_inside &= (ours != NO_WORD) & (theirs != NO_WORD)
        errors = np.where(is_inside, np.bitwise_count(ours ^ theirs), 0).sum(1)
        return errors, is_inside.sum(1)


class _Clips:
    """Which clip each frame belongs to, and where it begins and ends."""

    def __init__(self, frames: np.ndarray) -> None:
        self.of = np.repeat(np.arange(len(frames), dtype=np.int32), frames)
        self._ends = np.cumsum(frames)
        self._starts = self._ends - frames

    def start(self, places: np.ndarray) -> np.ndarray:
        return self._starts[self.of[places]]

    def end(self, places: np.ndarray) -> np.ndarray:
        return self._ends[self.of[places]]


def _limit(frames: np.ndarray) -> np.ndarray:
    """Return the share of different bits below which frames are taken for the same audio.

    In other audio half of the bits differ, less near the frame with the same word. The fewer the
    frames, the larger the spread.
    """
    count = np.maximum(frames, 1)
    limits = np.minimum(_LIMIT, 0.5 - 6 / count - 1.5 / np.sqrt(count))
    return np.where(count < _FEWEST_FRAMES, 0, limits)


def read_folder(folder: Path) -> Iterator[Fingerprints]:
    """Read the fingerprints of a formatted set.

    Args:
        folder: `dump/raw/<set>` or `dump/raw/org/<set>`, with the archives in `data`.

    Raises:
        MlmaError: a file is missing or damaged, or an utterance has no fingerprint.
    """
    missing = set(tables.read(folder / "wav.scp", _MADE_BY))
    for path in sorted((folder / "data").glob("shard.*.fp")):
        found = fingerprint.read(path)
        missing.difference_update(found.ids)
        yield found
    if missing:
        raise MlmaError(
            f"{folder / 'data'}: {min(missing)} has no fingerprint; run {_MADE_BY} again"
        )
