from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_mlma.sst.score.latency import (
    ScoredSentence,
    fixed,
    laal,
    queueing,
    repaired,
    stream_laal,
    unit_times,
)
from espnet_mlma.sst.score.logs import Emission, TranslatedTalk

turns = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20)


def test_laal_by_hand():
    # 4 words (reference: 3) in 2 s: the ideal interpreter emits one every 0.5 s.
    assert laal([0.5, 1.0, 1.5, 1.9], 2.0, 3) == pytest.approx((0.5 + 0.5 + 0.5 + 0.4) / 4)
    # The second comes at the end, so later ones are ignored.
    assert laal([1.0, 2.0, 9.0], 2.0, 4) == pytest.approx((1.0 + 1.5) / 2)
    assert laal([3.0, 4.0], 2.0, 5) == 3.0


def test_laal_equals_simulstream_and_omnisteval():
    tool = pytest.importorskip("simulstream.metrics.scorers.latency.stream_laal").StreamLaal
    scoring = pytest.importorskip("omnisteval.scoring")
    random = Random(0)
    for _ in range(500):
        delays = sorted(random.uniform(-2, 9) for _ in range(random.randint(1, 12)))
        duration, length = random.uniform(0.5, 9), random.randint(1, 12)
        found = laal(delays, duration, length)
        assert found == pytest.approx(tool._sentence_level_laal(delays, duration, length))
        instance = SimpleNamespace(
            emission_cu=delays, reference="", reference_length=length, source_length=duration
        )
        assert found == pytest.approx(scoring.LAALScorer().compute(instance))


def test_clamp_sets_negative_delays_to_0():
    times = np.array([0.5, 1.0, 1.5])
    sentences = [
        ScoredSentence(0.0, 1.0, 1, slice(0, 1)),
        ScoredSentence(1.25, 2.0, 2, slice(1, 3)),
        ScoredSentence(4.0, 1.0, 1, slice(3, 3)),
    ]
    mean, empty = stream_laal([(times, sentences)], clamp=False)
    assert (mean, empty) == (pytest.approx((0.5 + (-0.25 + 0.25 - 1.0) / 2) / 2), 1)
    mean, empty = stream_laal([(times, sentences)], clamp=True)
    assert (mean, empty) == (pytest.approx((0.5 + (0.0 + 0.25 - 1.0) / 2) / 2), 1)
    assert np.isnan(stream_laal([(times[:0], sentences[2:])], clamp=True)[0])


def test_queueing_waits_for_the_previous_turn():
    done = queueing(np.array([1.0, 2.0, 3.0, 9.0]), np.array([0.5, 1.5, 0.25, 0.5]))
    assert done.tolist() == [1.5, 3.5, 3.75, 9.5]


@given(turns)
def test_queueing_is_between_the_other_conventions(steps):
    heard = np.cumsum([step for step, _ in steps]).astype(float)
    computing = np.array([seconds for _, seconds in steps], dtype=float)
    done = queueing(heard, computing)
    assert np.all(done >= heard + computing)
    assert np.all(done <= heard + np.cumsum(computing))
    assert np.all(np.diff(done) >= computing[1:])


def test_fixed_equals_omnisteval():
    data = pytest.importorskip("omnisteval.data")
    random = Random(1)
    for _ in range(300):
        talk, sentences = random_talk(random)
        times = unit_times(talk, "word", sentences, clamp=False)
        words = [
            data.Word("a", emission_cu=delay, emission_ca=elapsed)
            for delay, elapsed in zip(times["ideal"], times["elapsed"], strict=True)
        ]
        expected = [word.emission_ca for word in data.fix_emission_ca(words)]
        assert times["fixed"] == pytest.approx(expected)
        assert fixed(times["ideal"], times["elapsed"]) == pytest.approx(expected)


def random_talk(random: Random) -> tuple[TranslatedTalk, list[ScoredSentence]]:
    """Make a talk in which every turn has text and no word precedes its sentence."""
    counts = [random.randint(1, 4) for _ in range(random.randint(1, 6))]
    emissions = [
        Emission(" ".join("a" * count), 0.96 * turn, random.randint(1, 900) / 1000)
        for turn, count in enumerate(counts, 1)
    ]
    ends = np.cumsum(counts)
    sentences = [
        ScoredSentence(0.96 * n, 0.96, 3, slice(int(end - count), int(end)))
        for n, (count, end) in enumerate(zip(counts, ends, strict=True))
    ]
    return TranslatedTalk("talk.wav", tuple(emissions), 0.96 * len(counts)), sentences


@pytest.mark.parametrize("clamp", [True, False])
def test_repaired_equals_per_chunk_without_silent_turns_and_early_words(clamp):
    random = Random(2)
    for _ in range(100):
        talk, sentences = random_talk(random)
        times = unit_times(talk, "word", sentences, clamp)
        assert times["repaired"] == pytest.approx(times["per_chunk"])


def test_repaired_by_hand():
    """A step with words of two sentences; the second has not started yet."""
    delays, elapsed = np.array([1.0, 1.0, 1.0, 2.0]), np.array([1.5, 1.5, 1.5, 2.75])
    sentences = [
        ScoredSentence(0.0, 1.25, 1, slice(0, 1)),
        ScoredSentence(1.25, 2.0, 3, slice(1, 4)),
    ]
    unclamped = repaired(delays, elapsed, sentences, clamp=False)
    assert unclamped.tolist() == [1.5, 1.5, 1.5, 2.25]
    # 0.5 s of compute, 0.25 s before the sentence: half of it remains after clamping.
    clamped = repaired(delays, elapsed, sentences, clamp=True)
    assert clamped.tolist() == [1.5, 1.5, 1.25, 2.25]
