"""CTC best path and forced alignment: which symbol lies in which frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError

BLANK = 0


@dataclass(frozen=True)
class Path:
    """Symbols and their frames.

    Attributes:
        token_ids: without repeats and blanks.
        score: log-probability of the path, natural logarithm.
        first, end: frames of each symbol, `end` excluded.
        token_scores: mean log-probability of each symbol over its frames.
    """

    token_ids: tuple[int, ...]
    score: float
    first: tuple[int, ...]
    end: tuple[int, ...]
    token_scores: tuple[float, ...]


def best_path(log_probs: Tensor) -> Path:
    """Take the most probable symbol of each frame, merge repeats and drop blanks.

    Args:
        log_probs: (frames, vocabulary), symbol 0 is the blank.

    Source: Graves et al., Connectionist temporal classification, ICML 2006, section 3.2.
    """
    peaks, symbols = log_probs.max(dim=-1)
    return _merge(symbols.cpu(), peaks.double().cpu())


def forced_path(log_probs: Tensor, token_ids: Sequence[int]) -> Path:
    """Find the most probable alignment of known symbols by Viterbi's algorithm.

    Args:
        log_probs: (frames, vocabulary), symbol 0 is the blank.
        token_ids: the symbols, without blanks.

    Raises:
        MlmaError: there are fewer frames than the symbols need.
    """
    from torchaudio.functional import forced_align

    if not token_ids:
        return Path((), float(log_probs[:, BLANK].double().sum()), (), (), ())
    symbols = torch.tensor(token_ids)
    needed = len(symbols) + int((symbols[1:] == symbols[:-1]).sum())
    if needed > len(log_probs):
        raise MlmaError(
            f"{len(symbols)} symbols need {needed} frames and the audio has {len(log_probs)}; "
            "check that text and audio belong together"
        )
    aligned, scores = forced_align(log_probs[None].float().cpu(), symbols[None])
    return _merge(aligned[0].long(), scores[0].double())


def _merge(symbols: Tensor, scores: Tensor) -> Path:
    """Merge runs of the same symbol; symbols (frames,), scores (frames,)."""
    runs, lengths = torch.unique_consecutive(symbols, return_counts=True)
    end = lengths.cumsum(0)
    sums = torch.cat([scores.new_zeros(1), scores.cumsum(0)])
    means = (sums[end] - sums[end - lengths]) / lengths
    kept = runs != BLANK
    columns = (runs, end - lengths, end, means)
    token_ids, first, last, means = (tuple(column[kept].tolist()) for column in columns)
    return Path(token_ids, float(scores.sum()), first, last, means)
