"""CTC best path: the most probable symbol of each frame, repeats merged, blanks dropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLANK = 0


@dataclass(frozen=True)
class BestPath:
    """One utterance's best path.

    Attributes:
        token_ids: the symbols left after merging and dropping blanks.
        score: log-probability of the path, natural logarithm.
    """

    token_ids: tuple[int, ...]
    score: float


def best_path(log_probs: Tensor, lengths: Tensor) -> list[BestPath]:
    """Decode a batch.

    Args:
        log_probs: (batch, frames, vocabulary), symbol 0 the blank.
        lengths: valid frames of each utterance, (batch,) integer.

    Source: Graves et al., Connectionist temporal classification, ICML 2006, section 3.2.
    """
    peaks, symbols = log_probs.max(dim=-1)
    results = []
    for peak, path, length in zip(
        peaks.double().cpu(), symbols.cpu(), lengths.tolist(), strict=True
    ):
        merged = torch.unique_consecutive(path[:length])
        token_ids = tuple(merged[merged != BLANK].tolist())
        results.append(BestPath(token_ids, peak[:length].sum().item()))
    return results
