"""How sequences lie in a tensor of rows, and what one direction of a scan reads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """Sequences one after another along the row axis, padding between them or none.

    Args:
        first: row at which each sequence begins, (sequences,) int64, ascending.
        length: its valid rows, (sequences,) int64; rows from its end to the next one's first row
            are padding.
    """

    first: Tensor
    length: Tensor


class Direction(NamedTuple):
    """The input of a scan in one direction.

    Args:
        u: input, (rows, channel), last axis contiguous.
        delta: step size before bias and softplus, (rows, channel), last axis contiguous.
        A: transition, (channel, state) fp32.
        B, C: input and output maps, (rows, state), last axis contiguous.
        D: skip weight, (channel,) fp32.
        delta_bias: added to delta, (channel,) fp32.
        initial: state before the first row scanned, (sequences, channel, state) fp32; None: zeros.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    delta_bias: Tensor
    initial: Tensor | None
