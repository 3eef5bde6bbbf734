"""The layout of sequences in memory: one after the other in rows, with or without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Place of each sequence; rows between two sequences are padding.

    Args:
        first: row at which each sequence begins, (sequence,) int64, ascending from 0.
        length: its valid rows, (sequence,) int64.
    """

    first: Tensor
    length: Tensor

    @classmethod
    def packed(cls, lengths: Tensor) -> Rows:
        """Lay out sequences of these lengths (sequence,) without padding."""
        lengths = lengths.to(torch.int64).contiguous()  # kernels read them by address
        return cls(lengths.cumsum(0) - lengths, lengths)

    @classmethod
    def whole(cls, x: Tensor) -> Rows:
        """Lay out all of x (1, row, ...) as one sequence."""
        return cls.packed(torch.tensor([x.size(1)], device=x.device))


def valid_frames(lengths: Tensor | None, batch: int, time: int, device: torch.device) -> Tensor:
    """Return a (batch, time) mask: True on the frames before each sequence's length."""
    frames = torch.arange(time, device=device)
    if lengths is None:
        return torch.ones(batch, time, dtype=torch.bool, device=device)
    return frames < lengths.to(device)[:, None]


class Packing(NamedTuple):
    """Map the valid frames of a padded batch to packed rows, and back.

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
        """Compute the packing of a batch.

        Args:
            lengths: valid frames of each sequence, (batch,) integer.
            time: frames it is padded to.
        """
        valid = valid_frames(lengths, len(lengths), time, lengths.device)
        index = valid.flatten().nonzero().squeeze(1)
        full = index.numel() == valid.numel()
        return cls(len(lengths), time, Rows.packed(lengths), None if full else index)

    def pack(self, x: Tensor) -> Tensor:
        """Pack x (batch, time, channel) to (1, frame, channel)."""
        x = x.flatten(0, 1)
        return (x if self.index is None else x.index_select(0, self.index))[None]

    def unpack(self, x: Tensor) -> Tensor:
        """Undo `pack`, with zeros as padding."""
        x = x[0]
        if self.index is not None:
            padded = x.new_zeros(self.batch * self.time, x.size(1))
            x = padded.index_copy(0, self.index, x)
        return x.view(self.batch, self.time, x.size(1))


class Direction(NamedTuple):
    """Hold the arguments of the selective scan in one direction.

    `selective_scan` takes frames as (batch, time, n) and optional fields. The operators and the
    backends for packed rows get frames as (row, n), contiguous in the last axis, and every D and
    delta_bias. A named tuple, because Triton's kernels take one as it is.

    Args:
        u: input, (batch, time, channel).
        delta: step size before bias and softplus, (batch, time, channel).
        A: transition, (channel, state); negative for a state that decays.
        B, C: input and output maps, (batch, time, state).
        D: skip weight, (channel,); None: zeros.
        delta_bias: added to delta, (channel,); None: zeros.
        initial_state: state before the first frame scanned, (sequence, channel, state); None:
            zeros. The number of sequences is the batch size, or that of the packed rows.
        reverse: scan backward in time, from the last valid frame of each sequence.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None
    initial_state: Tensor | None = None
    reverse: bool = False

    def map_frames(self, function: Callable[[Tensor], Tensor]) -> Direction:
        """Apply a function to the tensors that have a value for each frame: u, delta, B and C."""
        return Direction(
            function(self.u), function(self.delta), self.A, function(self.B), function(self.C),
            self.D, self.delta_bias, self.initial_state, self.reverse,
        )  # fmt: skip

    def map_constants(self, function: Callable[[Tensor], Tensor]) -> Direction:
        """Apply a function to the other tensors, where given: A, D, delta_bias, initial_state."""
        D, delta_bias, initial_state = (None if x is None else function(x) for x in self[5:8])
        return Direction(
            self.u, self.delta, function(self.A), self.B, self.C,
            D, delta_bias, initial_state, self.reverse,
        )  # fmt: skip


def padded_rows(batch: int, time: int, lengths: Tensor | None, device: torch.device) -> Rows:
    """Lay out a (batch, time, ...) tensor whose first two axes are flattened.

    Args:
        batch, time: the two axes.
        lengths: valid frames of each sequence, (batch,) integer; None: all of them.
        device: device of the tensor.

    Raises:
        ValueError: lengths have another shape, or one is out of range.
    """
    first = torch.arange(batch, device=device) * time
    if lengths is None:
        return Rows(first, torch.full((batch,), time, device=device))
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {tuple(lengths.shape)}; expected {(batch,)}")
    # Reading values would synchronise a GPU and break a compiler's trace, so lengths are
    # not checked there.
    may_look = lengths.device.type == "cpu" and not torch.compiler.is_compiling()
    if may_look and batch and not 0 <= lengths.min() <= lengths.max() <= time:
        raise ValueError(f"lengths must lie in 0 to {time}; got {lengths.tolist()}")
    return Rows(first, lengths.to(device, torch.int64).contiguous())


def dense_rows(x: Tensor) -> Tensor:
    """Return x, copied if its last axis is not contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def as_rows(x: Tensor) -> Tensor:
    """Flatten (batch, time, n) to (row, n), as a view if the strides allow it."""
    return dense_rows(x.flatten(0, 1))


def tile_rows(rows: int, sequences: int, tile: int) -> int:
    """Count the tiles of all sequences; those of sequence i start at first[i] // tile + i."""
    return rows // tile + sequences
