import itertools
import math

import pytest
import torch

from espnet_mlma.decode.best_path import best_path
from espnet_mlma.decode.recogniser import by_length


def test_repeats_merge_and_blanks_part():
    path = torch.tensor([[0, 3, 3, 0, 3, 2, 2, 0, 1]])
    log_probs = torch.nn.functional.one_hot(path, 4).float().mul(5).log_softmax(-1)
    (result,) = best_path(log_probs, torch.tensor([9]))
    assert result.token_ids == (3, 3, 2, 1)
    assert result.score == pytest.approx(9 * log_probs.max().item())


def test_is_the_most_probable_of_all_paths():
    torch.manual_seed(0)
    log_probs = torch.randn(1, 5, 3).log_softmax(-1)
    scores = {
        path: sum(log_probs[0, t, s].item() for t, s in enumerate(path))
        for path in itertools.product(range(3), repeat=5)
    }
    winner = max(scores, key=scores.get)
    (result,) = best_path(log_probs, torch.tensor([5]))
    merged = [s for s, _ in itertools.groupby(winner) if s]
    assert list(result.token_ids) == merged
    assert result.score == pytest.approx(scores[winner], abs=1e-5)


def test_frames_past_the_length_do_not_count():
    log_probs = torch.full((2, 4, 3), math.log(1 / 3))
    log_probs[:, :, 1] = -0.1
    long, none = best_path(log_probs, torch.tensor([2, 0]))
    assert long.token_ids == (1,) and long.score == pytest.approx(-0.2)
    assert none.token_ids == () and none.score == 0


def test_batches_by_length_keep_to_the_budget():
    lengths = {f"u{i}": 16000 * (1 + i % 7) for i in range(40)} | {"long": 16000 * 100}
    batches = list(by_length(lengths, batch_seconds=20, max_utterances=8))
    assert sorted(key for batch in batches for key in batch) == sorted(lengths)
    assert ["long"] in batches  # longer than the budget: alone, not dropped
    for batch in batches:
        padded = len(batch) * max(lengths[key] for key in batch)
        assert padded <= 20 * 16000 or len(batch) == 1
        assert len(batch) <= 8
