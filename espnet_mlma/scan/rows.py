"""How sequences lie in memory: one after the other in rows, perhaps with padding between them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from espnet_mlma.scan.reference import valid_frames


class Rows(NamedTuple):
    """Where each sequence lies; rows between two sequences are padding.

    Args:
        first: row at which each sequence begins, (sequence,) int64, ascending from 0.
        length: its valid rows, (sequence,) int64.
    """

    first: Tensor
    length: Tensor

    @classmethod
    def packed(cls, lengths: Tensor) -> Rows:
        """Sequences of these lengths (sequence,) one after the other, no padding between them."""
        lengths = lengths.to(torch.int64).contiguous()  # kernels read them by address
        return cls(lengths.cumsum(0) - lengths, lengths)

    @classmethod
    def whole(cls, x: Tensor) -> Rows:
        """One sequence that is all of x (1, row, ...)."""
        return cls.packed(torch.tensor([x.size(1)], device=x.device))


class Packing(NamedTuple):
    """How the valid frames of a padded batch lie when they are packed.

    Args:
        batch, time: shape of the padded batch.
        rows: where each sequence lies among the packed frames.
        index: place of each valid frame in the flattened batch, (frame,); None: all are valid.
    """

    batch: int
    time: int
    rows: Rows
    index: Tensor | None

    @classmethod
    def of(cls, lengths: Tensor, time: int) -> Packing:
        """The packing of a batch.

        Args:
            lengths: valid frames of each sequence, (batch,) integer.
            time: frames it is padded to.
        """
        valid = valid_frames(lengths, len(lengths), time, lengths.device)
        index = valid.flatten().nonzero().squeeze(1)
        full = index.numel() == valid.numel()
        return cls(len(lengths), time, Rows.packed(lengths), None if full else index)

    def pack(self, x: Tensor) -> Tensor:
        """x (batch, time, channel) as (1, frame, channel)."""
        x = x.flatten(0, 1)
        return (x if self.index is None else x.index_select(0, self.index))[None]

    def unpack(self, x: Tensor) -> Tensor:
        """The inverse of `pack`, with zeros as padding."""
        x = x[0]
        if self.index is not None:
            padded = x.new_zeros(self.batch * self.time, x.size(1))
            x = padded.index_copy(0, self.index, x)
        return x.view(self.batch, self.time, x.size(1))


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


def padded_rows(batch: int, time: int, lengths: Tensor | None, device: torch.device) -> Rows:
    """The rows of a (batch, time, ...) tensor whose first two axes are made one.

    Args:
        batch, time: the two axes.
        lengths: valid frames of each sequence, (batch,) integer; None: all of them.
        device: where the tensor lies.

    Raises:
        ValueError: lengths have another shape, or one is out of range.
    """
    first = torch.arange(batch, device=device) * time
    if lengths is None:
        return Rows(first, torch.full((batch,), time, device=device))
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}; expected {(batch,)}")
    # Looking at values would make a GPU wait and end a compiler's tracing: there they are the
    # caller's word.
    may_look = lengths.device.type == "cpu" and not torch.compiler.is_compiling()
    if may_look and batch and not 0 <= lengths.min() <= lengths.max() <= time:
        raise ValueError(f"lengths must lie in 0 to {time}; got {lengths.tolist()}")
    return Rows(first, lengths.to(device, torch.int64).contiguous())


def dense_rows(x: Tensor) -> Tensor:
    """x itself when its last axis is contiguous, else a copy of which that is true."""
    return x if x.stride(-1) == 1 else x.contiguous()


def as_rows(x: Tensor) -> Tensor:
    """(batch, time, n) as (row, n), a view where the strides allow it."""
    return dense_rows(x.flatten(0, 1))


def tile_rows(rows: int, sequences: int, tile: int) -> int:
    """Tiles of all sequences: those of sequence i are counted from first[i] // tile + i on."""
    return rows // tile + sequences
