"""StreamLAAL: how far a talk's output is behind an ideal interpreter, by sentence, then averaged.

The output is cut into the reference sentences (`resegment.py`), the sentence's start is taken from
the times of its units, and length-adaptive average lagging (Papi et al., "Over-Generation Cannot Be
Rewarded", 2022) is taken of each sentence. StreamLAAL is from Papi et al., "StreamAtt" (2024).
With computing time ("computation-aware") tools disagree on when a unit came out:

elapsed: audio and all computing so far, as SimulEval logs it; OmniSTEval takes it as it is. It
    grows for ever on a talk.
fixed: elapsed, each unit's from the one before it; OmniSTEval with `--fix_simuleval_emission_ca`.
repaired: the same thought in FBK-fairseq's script, which the paper's figures are from.
per_chunk: audio and the computing of the unit's own turn; simulstream.
queueing: a turn starts when its audio is there and the turn before it is done. None of the tools
    has it; it alone is right for a system that falls behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_mlma.sst.score.logs import Talk, units

IDEAL = "ideal"
COMPUTATION_AWARE = ("repaired", "per_chunk", "elapsed", "fixed", "queueing")


@dataclass(frozen=True)
class ScoredSentence:
    """A reference sentence and where its output is in the talk's.

    Attributes:
        start: in the talk, in seconds.
        duration: in seconds, above 0.
        reference_length: in units.
        span: of the talk's units.
    """

    start: float
    duration: float
    reference_length: int
    span: slice


def laal(delays: Sequence[float] | np.ndarray, duration: float, reference_length: int) -> float:
    """Length-adaptive average lagging of a sentence.

    Args:
        delays: (units,), at least one: when each came out, from the sentence's start.
        duration: of the sentence, above 0, in the unit of the delays.
        reference_length: in units.

    Returns:
        In the unit of the delays; units after the first that came at the end or later count not.
    """
    delays = np.asarray(delays, dtype=float)
    if delays[0] > duration:
        return float(delays[0])
    late = np.flatnonzero(delays >= duration)
    counted = int(late[0]) + 1 if len(late) else len(delays)
    pace = duration / max(len(delays), reference_length)
    return float(np.mean(delays[:counted] - pace * np.arange(counted)))


def stream_laal(
    talks: Iterable[tuple[np.ndarray, Sequence[ScoredSentence]]], clamp: bool
) -> tuple[float, int]:
    """Mean lagging over the sentences of all talks.

    Args:
        talks: when a talk's units came out, (units,) in seconds of the talk; and its sentences.
        clamp: a unit that came before its sentence's start counts as at the start. FBK-fairseq
            does it, the paper's figures with it; simulstream does not.

    Returns:
        In seconds, nan without any output; and how many sentences have none, which count not.
    """
    scores, empty = [], 0
    for times, sentences in talks:
        for sentence in sentences:
            delays = times[sentence.span] - sentence.start
            if not len(delays):
                empty += 1
                continue
            if clamp:
                delays = np.maximum(delays, 0)
            scores.append(laal(delays, sentence.duration, sentence.reference_length))
    return float(np.mean(scores)) if scores else float("nan"), empty


def unit_times(
    talk: Talk, unit: str, sentences: Sequence[ScoredSentence], clamp: bool
) -> Mapping[str, np.ndarray]:
    """When the units of a talk came out, ideally and by each computation-aware convention.

    Args:
        talk: as read from a log.
        unit: word or char.
        sentences: all of the talk, whose starts and whose clamping `repaired` depends on.
        clamp: as for `stream_laal`.

    Returns:
        (units,) in seconds of the talk, by name.
    """
    counts = [len(units(emission.text, unit)) for emission in talk.emissions]
    heard = np.array([emission.audio_seconds for emission in talk.emissions])
    computing = np.array([emission.compute_seconds for emission in talk.emissions])
    delays = np.repeat(heard, counts)
    elapsed = np.repeat(heard + np.cumsum(computing), counts)
    return {
        IDEAL: delays,
        "repaired": repaired(delays, elapsed, sentences, clamp),
        "per_chunk": np.repeat(heard + computing, counts),
        "elapsed": elapsed,
        "fixed": fixed(delays, elapsed),
        "queueing": np.repeat(queueing(heard, computing), counts),
    }


def queueing(heard: np.ndarray, computing: np.ndarray) -> np.ndarray:
    """When each turn is done, if one starts when it may: max(done before, heard) + computing.

    Args:
        heard: (turns,), audio that the turn waits for, in seconds.
        computing: (turns,), of the turn, in seconds.
    """
    done, times = 0.0, np.empty(len(heard))
    for turn, (audio, seconds) in enumerate(zip(heard, computing, strict=True)):
        done = times[turn] = max(done, audio) + seconds
    return times


def fixed(delays: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
    """Elapsed times from unit to unit, none before the one before it; OmniSTEval's.

    Args:
        delays: (units,), audio heard.
        elapsed: (units,), audio and all computing so far.
    """
    steps = elapsed.copy()
    steps[1:] += delays[:-1] - elapsed[:-1]
    return np.maximum.accumulate(steps)


def repaired(
    delays: np.ndarray, elapsed: np.ndarray, sentences: Sequence[ScoredSentence], clamp: bool
) -> np.ndarray:
    """Elapsed times from unit to unit, those of one step alike; FBK-fairseq's.

    What a step of several units cost is taken from its unit before, after that was made relative
    to its sentence and clamped; hence the sentences.

    Args:
        delays: (units,), audio heard, in seconds.
        elapsed: (units,), audio and all computing so far, in seconds.
        sentences: all of the talk.
        clamp: as for `stream_laal`.

    Returns:
        (units,), in seconds of the talk.
    """
    times = np.empty(len(delays))
    relative = relative_delay = 0.0
    for sentence in sentences:
        for unit in range(len(delays))[sentence.span]:
            if unit == 0:
                time = elapsed[0]
            elif elapsed[unit] == elapsed[unit - 1]:
                time = relative - relative_delay + delays[unit]
            else:
                time = elapsed[unit] - elapsed[unit - 1] + delays[unit - 1]
            relative, relative_delay = time - sentence.start, delays[unit] - sentence.start
            if clamp:
                relative, relative_delay = max(0.0, relative), max(0.0, relative_delay)
            times[unit] = relative + sentence.start
    return times
