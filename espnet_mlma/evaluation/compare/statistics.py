"""Is one system better than another on the same utterances, or could that be chance?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # scipy.stats takes far longer to import

RESAMPLES = 1000
SEED = 0
MIN_SPEAKERS = 6  # with fewer, the ends of the interval are rarer than one draw in RESAMPLES
MIN_SEGMENTS = 10  # with fewer, their mean is far from normally distributed
_BOUNDARY = 2  # words right in both systems that part two segments
_DRAWN_AT_ONCE = 4_000_000  # speakers in the memory of the bootstrap


@dataclass(frozen=True)
class Bootstrap:
    """What resampling says of the difference of two error rates.

    Attributes:
        difference: rate of the first system less that of the second, in points of per cent.
        low, high: the 95 % interval.
        p: two-sided.
        is_most: no draw is on the other side of zero: p is the most that it can be, and the least
            that so many speakers and draws can show.

    Of fewer than `MIN_SPEAKERS` low, high and p are nan.
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
        segments: how many there are.
        z: above 0 where the first system has more errors; infinite where all segments differ alike.
        p: two-sided, by the normal distribution.

    Of fewer than `MIN_SEGMENTS` both are nan.
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
    """Compare two error rates by drawing speakers, both systems' together, with replacement.

    What one speaker says has errors in common: drawn one by one, utterances of few speakers would
    make a difference look surer than it is. So do plain percentiles of the draws of few speakers,
    by which of ten speakers every tenth difference of equal systems has p below 0.05. They are
    moved outwards, as far as Student's distribution is wider than the normal one.

    Args:
        first: errors of the first system (utterance,).
        second: errors of the second on the same utterances (utterance,).
        reference: reference tokens (utterance,), at least one in all.
        speakers: of each utterance (utterance,).
        resamples: how often as many speakers as there are get drawn.
        seed: of the draw.

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
        # Draws of nothing but empty references have no rate; they say nothing either way.
        differences.append(100 * errors[drawn].sum(1)[spoken > 0] / spoken[spoken > 0])
    resampled = np.concatenate(differences)
    wider = math.sqrt(count / (count - 1))
    outside = ndtr(stdtrit(count - 1, 0.025) * wider)
    # The sample itself counts as one draw: p is never 0 for want of draws. An end is the draw
    # beyond which, that one counted, lie just too few: 0 is outside where p is below 0.05.
    draws = len(resampled) + 1
    beyond = max(0, math.ceil(outside * draws) - 2)
    low, high = np.partition(resampled, [beyond, -1 - beyond])[[beyond, -1 - beyond]]
    across = min((resampled <= 0).sum(), (resampled >= 0).sum())
    tail = (across + 1) / draws
    p = 2 * stdtr(count - 1, ndtri(min(0.5, tail)) / wider)
    return Bootstrap(difference, float(low), float(high), float(p), is_most=bool(across == 0))


def slots(alignment: Iterable[tuple[str | None, str | None]]) -> tuple[int, ...]:
    """Where the errors are: (2 x words + 1,).

    An odd place is 1 where its reference word is wrong; an even one has the number of words that
    were inserted before the next, or at the end.

    Args:
        alignment: pairs of `score.align`.
    """
    places = [0]
    for spoken, recognised in alignment:
        if spoken is None:
            places[-1] += 1
        else:
            places += [int(spoken != recognised), 0]
    return tuple(places)


def segments(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """Errors of both systems in each segment of an utterance that has some.

    Two words that both have right, with nothing inserted between them, part segments.

    Args:
        first: `slots` of the first system.
        second: those of the second on the same reference.
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
    """The test over utterances, as NIST's sc_stats does it.

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
