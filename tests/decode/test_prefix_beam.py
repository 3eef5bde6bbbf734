import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from espnet_mlma.decode.prefix_beam import Hypothesis, prefix_beam

EVERYTHING = 10**6


def exhaustive(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """Return all texts with the sum over their alignments."""
    paths = defaultdict(list)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        text = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        paths[text].append(sum(log_probs[t, symbol] for t, symbol in enumerate(path)))
    scores = {text: np.logaddexp.reduce(values) for text, values in paths.items()}
    return {text: score for text, score in scores.items() if score > -math.inf}


def with_tuples(log_probs, width, token_threshold, score_threshold):
    """Run the same search with tuples as prefixes, which are unique in a dictionary."""
    beam = {(): (0.0, -math.inf)}
    for frame in log_probs:
        new = defaultdict(lambda: (-math.inf, -math.inf))
        for symbol in range(len(frame)):
            if frame[symbol] < token_threshold and symbol != frame.argmax():
                continue
            for prefix, (blank, last) in beam.items():
                both = np.logaddexp(blank, last)
                if symbol == 0:
                    new[prefix] = (np.logaddexp(new[prefix][0], both + frame[0]), new[prefix][1])
                    continue
                longer = (*prefix, symbol)
                if prefix[-1:] == (symbol,):
                    stay = np.logaddexp(new[prefix][1], last + frame[symbol])
                    new[prefix] = (new[prefix][0], stay)
                    both = blank
                new[longer] = (new[longer][0], np.logaddexp(new[longer][1], both + frame[symbol]))
        scores = {prefix: np.logaddexp(*parts) for prefix, parts in new.items()}
        floor = max(scores.values()) - score_threshold
        best = sorted((p for p in scores if scores[p] >= floor), key=scores.get, reverse=True)
        beam = {prefix: new[prefix] for prefix in best[:width]}
    return {prefix: np.logaddexp(*parts) for prefix, parts in beam.items()}


def random_log_probs(seed: int, frames: int, vocabulary: int, blank: float = 0.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, vocabulary))
    logits[:, 0] += blank
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@st.composite
def emissions(draw):
    shape = (draw(st.integers(0, 6)), draw(st.integers(3, 4)))
    values = st.one_of(st.floats(-9, 0), st.just(-math.inf))
    log_probs = draw(arrays(np.float64, shape, elements=values))
    log_probs[:, 0] += draw(st.sampled_from([-6, 0, 6]))
    return log_probs


@settings(max_examples=60)
@given(emissions())
def test_scores_equal_an_exhaustive_search(log_probs):
    expected = exhaustive(log_probs) or {(): -math.inf}
    found = prefix_beam(log_probs, width=EVERYTHING, n_best=EVERYTHING)
    assert {hypothesis.token_ids for hypothesis in found} == set(expected)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(expected[hypothesis.token_ids], abs=1e-9)
        assert hypothesis.total == hypothesis.score
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_probabilities_sum_to_one():
    found = prefix_beam(random_log_probs(0, 7, 4), width=EVERYTHING, n_best=EVERYTHING)
    assert sum(math.exp(hypothesis.score) for hypothesis in found) == pytest.approx(1.0)


@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("thresholds", [(-math.inf, math.inf), (-2.0, math.inf), (-3.0, 2.0)])
def test_a_narrow_beam_has_no_prefix_twice(width, thresholds):
    for seed in range(12):
        log_probs = random_log_probs(seed, 25, 5, blank=seed % 3)
        expected = with_tuples(log_probs, width, *thresholds)
        found = prefix_beam(log_probs, width, *thresholds, n_best=EVERYTHING)
        assert len(found) == len(expected)
        for hypothesis in found:
            assert hypothesis.score == pytest.approx(expected[hypothesis.token_ids], abs=1e-9)


def test_a_prefix_that_left_the_beam_returns_as_the_same_node():
    # In some of these cases a prefix leaves the beam while its continuation stays.
    for seed in range(60):
        log_probs = random_log_probs(seed, 25, 3, blank=-1)
        found = prefix_beam(log_probs, width=8, n_best=EVERYTHING)
        expected = with_tuples(log_probs, 8, -math.inf, math.inf)
        assert {hypothesis.token_ids for hypothesis in found} == set(expected)
        assert len(found) == len(expected)


def test_a_text_of_several_alignments_beats_the_best_path():
    # Graves's example: each frame prefers the blank, but "a" is most probable.
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert prefix_beam(log_probs, width=1)[0].token_ids == ()
    best, second = prefix_beam(log_probs, width=2, n_best=5)
    assert best == Hypothesis((1,), pytest.approx(math.log(0.64)), pytest.approx(math.log(0.64)))
    assert second.score == pytest.approx(math.log(0.36))


def test_a_repeated_symbol_needs_a_blank():
    certain = np.full((3, 2), -np.inf)
    certain[[0, 1, 2], [1, 1, 1]] = 0
    assert prefix_beam(certain, width=4)[0].token_ids == (1,)
    certain[1] = [0, -np.inf]
    assert prefix_beam(certain, width=4)[0].token_ids == (1, 1)


def test_the_token_threshold_keeps_the_best_symbol_of_a_frame():
    log_probs = np.log([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
    found = prefix_beam(log_probs, width=10, token_threshold=math.log(0.45), n_best=10)
    assert [hypothesis.token_ids for hypothesis in found] == [(1,)]
    assert found[0].score == pytest.approx(math.log(0.5 * 0.4))


def test_the_score_threshold_drops_poor_prefixes():
    log_probs = np.log([[0.7, 0.2, 0.1]])
    for reach, texts in [(1.0, [()]), (1.5, [(), (1,)]), (2.0, [(), (1,), (2,)])]:
        found = prefix_beam(log_probs, width=10, score_threshold=reach, n_best=10)
        assert [hypothesis.token_ids for hypothesis in found] == texts


def test_no_frames_and_no_probability():
    nothing = prefix_beam(np.zeros((0, 5), np.float32), width=3)
    assert nothing == [Hypothesis((), 0.0, 0.0)]
    impossible = np.zeros((3, 4))
    for frame in range(3):
        impossible[frame] = -np.inf
        found = prefix_beam(impossible, width=3, token_threshold=-5.0)
        assert found == [Hypothesis((), -math.inf, -math.inf)]
        impossible[frame] = 0


def test_single_precision_in_and_double_inside():
    log_probs = random_log_probs(1, 40, 20).astype(np.float32)
    found = prefix_beam(log_probs, width=10, token_threshold=-8.0)
    same = prefix_beam(log_probs.astype(np.float64), width=10, token_threshold=-8.0)
    assert found == same
