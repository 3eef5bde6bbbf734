"""Compute StreamLAAL: the lag behind an ideal interpreter, averaged over reference sentences.

The output is split at the reference sentences (`resegment.py`). Delays are taken relative to the
sentence's start. Length-adaptive average lagging (LAAL; Papi et al., "Over-Generation Cannot Be
Rewarded", 2022) is computed per sentence. StreamLAAL is from Papi et al., "StreamAtt" (2024).
Tools define the computation-aware time of a unit in different ways:

elapsed: audio plus all compute so far, as SimulEval logs it and OmniSTEval uses it. It grows
    without bound over a talk.
fixed: elapsed, corrected from unit to unit; OmniSTEval with `--fix_simuleval_emission_ca`.
repaired: the correction of FBK-fairseq's script, with which the paper's figures were computed.
per_chunk: audio plus the compute of the unit's own turn; simulstream.
queueing: a turn starts when its audio is complete and the previous turn is done. No tool has it.
    It is the only correct one for a system slower than real time.

We keep this code because no one tool has all five. Tests compare with simulstream and OmniSTEval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_mlma.sst.score.logs import TranslatedTalk, units

IDEAL = "ideal"
COMPUTATION_AWARE = ("repaired", "per_chunk", "elapsed", "fixed", "queueing")


@dataclass(frozen=True)
class ScoredSentence:
    """Hold a reference sentence and the span of its output.

    Attributes:
        start: start in the talk, in seconds.
        duration: duration in seconds, above 0.
        reference_length: length of the reference in units.
        span: slice of the talk's units.
    """

    start: float
    duration: float
    reference_length: int
    span: slice


def laal(delays: Sequence[float] | np.ndarray, duration: float, reference_length: int) -> float:
    """Return the length-adaptive average lagging of a sentence.

    Args:
        delays: emission times relative to the sentence's start, (units,), at least one.
        duration: duration of the sentence, above 0, in the same time unit.
        reference_length: length of the reference in units.

    Returns:
        Lag in the same time unit. Units after the first one at or past the end are ignored.
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
    """Return the mean lag over the sentences of all talks.

    Args:
        talks: emission times (units,) in seconds of the talk, and sentences, of each talk.
        clamp: set negative delays to 0, as FBK-fairseq and the paper do (v1); False: keep them,
            as simulstream does (v2).

    Returns:
        Lag in seconds, NaN without any output; and the number of sentences without output, which
        are ignored.
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
    talk: TranslatedTalk, unit: str, sentences: Sequence[ScoredSentence], clamp: bool
) -> Mapping[str, np.ndarray]:
    """Return the emission times of a talk's units, ideal and computation-aware.

    Args:
        talk: translated talk.
        unit: word or char.
        sentences: all sentences of the talk; `repaired` depends on them.
        clamp: see `stream_laal`; `repaired` depends on it.

    Returns:
        Times (units,) in seconds of the talk, by name of the convention.
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
    """Return the end of each turn: max(end of the previous turn, heard) + computing.

    Args:
        heard: audio that the turn needs, (turns,), in seconds.
        computing: compute time of the turn, (turns,), in seconds.
    """
    done, times = 0.0, np.empty(len(heard))
    for turn, (audio, seconds) in enumerate(zip(heard, computing, strict=True)):
        done = times[turn] = max(done, audio) + seconds
    return times


def fixed(delays: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
    """Correct elapsed times from unit to unit and keep them monotonic, as OmniSTEval does.

    Args:
        delays: audio heard, (units,).
        elapsed: audio plus all compute so far, (units,), in the same time unit.
    """
    steps = elapsed.copy()
    steps[1:] += delays[:-1] - elapsed[:-1]
    return np.maximum.accumulate(steps)


def repaired(
    delays: np.ndarray, elapsed: np.ndarray, sentences: Sequence[ScoredSentence], clamp: bool
) -> np.ndarray:
    """Correct elapsed times as FBK-fairseq does; units of one step get the same compute time.

    The compute time of a step's later units is copied from the previous unit, whose times are
    already relative to its sentence and clamped. The result therefore depends on the sentences.

    Args:
        delays: audio heard, (units,), in seconds.
        elapsed: audio plus all compute so far, (units,), in seconds.
        sentences: all sentences of the talk.
        clamp: see `stream_laal`.

    Returns:
        Times (units,) in seconds of the talk.
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
