import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_mlma.decode.best_path import best_path, forced_path
from espnet_mlma.decode.recogniser import by_length
from espnet_mlma.errors import MlmaError


def peaked(path: list[int], size: int) -> torch.Tensor:
    """Make log-probabilities (frames, size) with this best path."""
    return torch.nn.functional.one_hot(torch.tensor(path), size).float().mul(5).log_softmax(-1)


def test_repeats_merge_and_blanks_separate():
    log_probs = peaked([0, 3, 3, 0, 3, 2, 2, 0, 1], 4)
    result = best_path(log_probs)
    assert result.token_ids == (3, 3, 2, 1)
    assert result.score == pytest.approx(9 * log_probs.max().item())
    assert (result.first, result.end) == ((1, 4, 5, 8), (3, 5, 7, 9))
    assert result.token_scores == pytest.approx([log_probs.max().item()] * 4)


def test_the_best_path_is_the_most_probable_path():
    torch.manual_seed(0)
    log_probs = torch.randn(5, 3).log_softmax(-1)
    scores = {
        path: sum(log_probs[t, s].item() for t, s in enumerate(path))
        for path in itertools.product(range(3), repeat=5)
    }
    winner = max(scores, key=scores.get)
    result = best_path(log_probs)
    merged = [s for s, _ in itertools.groupby(winner) if s]
    assert list(result.token_ids) == merged
    assert result.score == pytest.approx(scores[winner], abs=1e-5)


def test_no_frames_have_no_symbols():
    result = best_path(torch.zeros(0, 3))
    assert result.token_ids == () and result.score == 0


@given(st.integers(0, 10**6))
def test_a_forced_path_is_the_best_alignment(seed):
    """Compare with an exhaustive search over all alignments, on small cases."""
    torch.manual_seed(seed)
    log_probs = (3 * torch.randn(5, 3)).log_softmax(-1)
    wanted = torch.randint(1, 3, (int(torch.randint(1, 4, ())),)).tolist()
    alignments = [
        path
        for path in itertools.product(range(3), repeat=5)
        if [s for s, _ in itertools.groupby(path) if s] == wanted
    ]
    score = {p: sum(log_probs[t, s].item() for t, s in enumerate(p)) for p in alignments}
    best = max(alignments, key=score.get)
    result = forced_path(log_probs, wanted)
    assert list(result.token_ids) == wanted
    assert result.score == pytest.approx(score[best], abs=1e-4)
    for symbol, first, end in zip(result.token_ids, result.first, result.end, strict=True):
        assert set(best[first:end]) == {symbol}


def test_aligning_the_best_path_returns_it():
    torch.manual_seed(1)
    log_probs = (4 * torch.randn(40, 6)).log_softmax(-1)
    best = best_path(log_probs)
    again = forced_path(log_probs, best.token_ids)
    assert (again.first, again.end) == (best.first, best.end)
    assert again.score == pytest.approx(best.score, abs=1e-3)


def test_too_few_frames_for_the_symbols_are_refused():
    with pytest.raises(MlmaError, match="3 symbols need 4 frames and the audio has 3"):
        forced_path(torch.zeros(3, 4), [1, 1, 2])


def test_batches_by_length_keep_to_the_budget():
    lengths = {f"u{i}": 16000 * (1 + i % 7) for i in range(40)} | {"long": 16000 * 100}
    batches = list(by_length(lengths, batch_seconds=20, max_utterances=8))
    assert sorted(key for batch in batches for key in batch) == sorted(lengths)
    assert ["long"] in batches  # longer than the budget: alone, not dropped
    for batch in batches:
        padded = len(batch) * max(lengths[key] for key in batch)
        assert padded <= 20 * 16000 or len(batch) == 1
        assert len(batch) <= 8
