"""How sequences lie in memory: one after the other in rows, perhaps with padding between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Where each sequence lies; rows between two sequences are padding.

    Args:
        first: row at which each sequence begins, (sequence,) int64, ascending.
        length: its valid rows, (sequence,) int64.
    """

    first: Tensor
    length: Tensor


class Direction(NamedTuple):
    """What a scan reads, in one direction; rows are contiguous in the last axis.

    Args:
        u: input, (row, channel).
        delta: step size before bias and softplus, (row, channel).
        A: transition, (channel, state).
        B, C: input and output maps, (row, state).
        D: skip weight, (channel,).
        delta_bias: (channel,).
        initial: state before the first row scanned, (sequence, channel, state); None: zeros.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    delta_bias: Tensor
    initial: Tensor | None = None


def rows_of(
    batch: int, time: int, device: torch.device, lengths: Tensor | None, offsets: Tensor | None
) -> Rows:
    """The layout of a (batch, time, ...) tensor whose first two axes are made one.

    Args:
        batch, time: the two axes.
        device: where the tensor lies.
        lengths: valid frames of each padded sequence, (batch,); None: all of them.
        offsets: where packed sequences begin and the last one ends, (sequence + 1,); the tensor is
            then a batch of one.

    Raises:
        ValueError: shapes disagree, a length or offset is out of range, or both are given.
    """
    if offsets is not None:
        if lengths is not None or batch != 1 or offsets.dim() != 1 or not len(offsets):
            raise ValueError(
                "offsets (sequence + 1,) are for packed sequences: a batch of one, no lengths"
            )
        length = offsets.diff()
        if _may_look(offsets) and (offsets[0] != 0 or offsets[-1] != time or (length < 0).any()):
            raise ValueError(f"offsets must go from 0 up to {time}; got {offsets.tolist()}")
        return Rows(offsets[:-1].to(device, torch.int64), length.to(device, torch.int64))
    first = torch.arange(0, batch * time, max(time, 1), device=device)[:batch]
    if time == 0:
        first = torch.zeros(batch, dtype=torch.int64, device=device)
    if lengths is None:
        return Rows(first, torch.full((batch,), time, device=device))
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}; expected {(batch,)}")
    if _may_look(lengths) and batch and not 0 <= lengths.min() <= lengths.max() <= time:
        raise ValueError(f"lengths must lie in 0 to {time}; got {lengths.tolist()}")
    return Rows(first, lengths.to(device, torch.int64))


def _may_look(x: Tensor) -> bool:
    # Looking at values would make a GPU wait and stop a compiler's tracing; there they are the
    # caller's word.
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def as_rows(x: Tensor) -> Tensor:
    """(batch, time, n) as (row, n), a view where the strides allow it."""
    x = x.flatten(0, 1)
    return x if x.stride(-1) == 1 else x.contiguous()


def padded_index(rows: Rows) -> tuple[Tensor, Tensor]:
    """For backends that know padding only: where each frame of a padded tensor is read, and back.

    Args:
        rows: sequences with no padding between them.

    Returns:
        Row of each frame, (sequence, longest), any row where there is none; and the frame of each
        row in the flattened padded tensor, (row,).
    """
    longest = int(rows.length.max()) if len(rows.length) else 0
    frames = torch.arange(longest, device=rows.first.device)
    valid = frames < rows.length[:, None]
    take = torch.where(valid, rows.first[:, None] + frames, 0)
    return take, valid.flatten().nonzero().squeeze(1)
