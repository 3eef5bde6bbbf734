"""Padded batches as packed frames and back, so that nothing is computed on padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """How the valid frames of a padded batch lie when they are packed.

    Args:
        batch, time: shape of the padded batch.
        offsets: frame at which each sequence begins, and the end, (batch + 1,) int64.
        index: place of each valid frame in the flattened batch, (frame,); None: all are valid.
    """

    batch: int
    time: int
    offsets: Tensor
    index: Tensor | None

    @classmethod
    def of(cls, lengths: Tensor, time: int) -> Packing:
        """The packing of a batch.

        Args:
            lengths: valid frames of each sequence, (batch,) integer.
            time: frames it is padded to.
        """
        valid = torch.arange(time, device=lengths.device) < lengths[:, None]
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        index = valid.flatten().nonzero().squeeze(1)
        full = index.numel() == valid.numel()
        return cls(len(lengths), time, offsets, None if full else index)

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
