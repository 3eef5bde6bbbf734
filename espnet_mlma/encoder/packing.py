"""Padded batches as packed frames and back, so that nothing is computed on padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from espnet_mlma.scan import Rows


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
        valid = torch.arange(time, device=lengths.device) < lengths[:, None]
        rows = Rows.packed(lengths)
        index = valid.flatten().nonzero().squeeze(1)
        full = index.numel() == valid.numel()
        return cls(len(lengths), time, rows, None if full else index)

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
