"""Dropout that does not hold up training on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, with sixteen random bits an element on a CPU.

    PyTorch draws a whole random number for every element there, on one thread, which is a fifth
    of ConMamba's training step. The rate is rounded to 1/65536, and the scale goes by the rounded.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        if not self.training or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = round(self.p * 2**16)
        if dropped in (0, 2**16):
            return super().forward(x)
        numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        numbers.random_(-(2**63), None)
        bits = numbers.view(torch.int16)[: x.numel()].view(x.shape)
        return x.mul(bits >= dropped - 2**15).mul_(1 / (1 - dropped / 2**16))
