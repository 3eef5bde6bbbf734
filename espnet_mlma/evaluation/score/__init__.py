"""Keyed scoring: word, character and token error rates, by sclite or counted as sclite does."""

from espnet_mlma.evaluation.score.align import Errors, align, count_errors

__all__ = ["Errors", "align", "count_errors"]
