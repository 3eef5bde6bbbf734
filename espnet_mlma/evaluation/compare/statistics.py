"""Significance tests of two systems on the same utterances: bootstrap and MAPSSWE."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # scipy.stats takes far longer to import

RESAMPLES = 1000
SEED = 0
MIN_SPEAKERS = 6  # below, the interval ends beyond one draw in RESAMPLES
MIN_SEGMENTS = 10  # below, their mean is far from normally distributed
_BOUNDARY = 2  # words right in both systems between two segments
_DRAWN_AT_ONCE = 4_000_000  # speakers in a chunk, to bound memory


@dataclass(frozen=True)
class Bootstrap:
    """Difference of two error rates with its bootstrap interval.

    Attributes:
        difference: first system's rate minus the second's, in percentage points.
        low, high: 95 % interval; NaN with fewer than `MIN_SPEAKERS`.
        p: two-sided; NaN with fewer than `MIN_SPEAKERS`.
        is_most: no draw has the opposite sign; p is an upper bound.
    """

    difference: float
    low: float
    high: float
    p: float
    is_most: bool = False


@dataclass(frozen=True)
class Mapsswe:
    """The matched pairs sentence-segment word error test.

    Attributes:
        segments: number of segments.
        z: positive if the first system has more errors; infinite if all segments differ equally;
            NaN with fewer than `MIN_SEGMENTS`.
        p: two-sided, normal distribution; NaN with fewer than `MIN_SEGMENTS`.
    """

    segments: int
    z: float
    p: float


def bootstrap(
    first: Sequence[int],
    second: Sequence[int],
    reference: Sequence[int],
    speakers: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Bootstrap:
    """Compare two error rates by resampling speakers, paired, with replacement.

    Errors of one speaker are correlated, so resampling utterances would make a difference look too
    certain. Plain percentile intervals are too narrow for few speakers: with ten, every tenth
    difference of equal systems has p below 0.05. Expanded percentiles widen them by the ratio of
    Student's to the normal distribution.

    Args:
        first: errors of the first system (utterance,).
        second: errors of the second on the same utterances (utterance,).
        reference: reference tokens (utterance,), at least one in total.
        speakers: of each utterance (utterance,).
        resamples: number of draws, each of as many speakers as there are.
        seed: of the draws.

    Source: Bisani and Ney, Bootstrap estimates for confidence intervals in ASR performance
        evaluation, ICASSP 2004; expanded percentiles: Hesterberg, What teachers should know about
        the bootstrap, The American Statistician 69 (2015).
    """
    _, speaker = np.unique(list(speakers), return_inverse=True)
    errors, tokens = (
        np.bincount(speaker, weights=counts).astype(np.int64)
        for counts in (np.subtract(first, second, dtype=np.int64), reference)
    )
    rng = np.random.default_rng(seed)
    count = len(tokens)
    difference = float(100 * errors.sum() / tokens.sum())
    if count < MIN_SPEAKERS:
        return Bootstrap(difference, math.nan, math.nan, math.nan)
    at_once = max(1, _DRAWN_AT_ONCE // count)
    differences = []
    for start in range(0, resamples, at_once):
        drawn = rng.integers(count, size=(min(at_once, resamples - start), count))
        spoken = tokens[drawn].sum(1)
        # Draws with only empty references have no rate and are skipped.
        differences.append(100 * errors[drawn].sum(1)[spoken > 0] / spoken[spoken > 0])
    resampled = np.concatenate(differences)
    wider = math.sqrt(count / (count - 1))
    outside = ndtr(stdtrit(count - 1, 0.025) * wider)
    # The sample itself counts as one draw, so p is never 0. The ends are chosen so that 0 is
    # outside the interval exactly if p is below 0.05.
    draws = len(resampled) + 1
    beyond = max(0, math.ceil(outside * draws) - 2)
    low, high = np.partition(resampled, [beyond, -1 - beyond])[[beyond, -1 - beyond]]
    across = min((resampled <= 0).sum(), (resampled >= 0).sum())
    tail = (across + 1) / draws
    p = 2 * stdtr(count - 1, ndtri(min(0.5, tail)) / wider)
    return Bootstrap(difference, float(low), float(high), float(p), is_most=bool(across == 0))


def slots(alignment: Iterable[tuple[str | None, str | None]]) -> tuple[int, ...]:
    """Return error counts around and at each reference word: (2 x words + 1,).

    Odd places are 1 if their reference word is wrong. Even places count the words inserted there.

    Args:
        alignment: see `score.align`.
    """
    places = [0]
    for spoken, recognised in alignment:
        if spoken is None:
            places[-1] += 1
        else:
            places += [int(spoken != recognised), 0]
    return tuple(places)


def segments(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """List the errors of both systems in each segment of an utterance with errors.

    Segments are separated by two adjacent words that are right in both systems.

    Args:
        first: `slots` of the first system.
        second: `slots` of the second on the same reference.
    """
    found = []
    errors, right = (0, 0), 0
    for place, (a, b) in enumerate(zip(first, second, strict=True)):
        if a or b:
            errors, right = (errors[0] + a, errors[1] + b), 0
        elif place % 2:
            right += 1
            if right == _BOUNDARY and any(errors):
                found.append(errors)
                errors = (0, 0)
    return [*found, errors] if any(errors) else found


def mapsswe(pairs: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Mapsswe:
    """Run the test over utterances as NIST's sc_stats does.

    Args:
        pairs: `slots` of both systems, by utterance.

    Source: Gillick and Cox, Some statistical issues in the comparison of speech recognition
        algorithms, ICASSP 1989; boundaries of two words as in NIST's SCTK.
    """
    differences = np.array([a - b for pair in pairs for a, b in segments(*pair)])
    count = len(differences)
    if not differences.any():
        return Mapsswe(count, 0.0, 1.0)
    if count < MIN_SEGMENTS:
        return Mapsswe(count, math.nan, math.nan)
    deviation = differences.std(ddof=1) / math.sqrt(count)
    z = (
        float(differences.mean() / deviation)
        if deviation
        else math.copysign(math.inf, differences[0])
    )
    return Mapsswe(count, z, math.erfc(abs(z) / math.sqrt(2)))
