"""The depthwise convolution as a module, and the convolution module of a block."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.scan import depthwise_conv


class DepthwiseConv(nn.Module):
    """One kernel per channel over time, within each sequence's length.

    Args:
        channels: number of channels.
        kernel_size: frames under the kernel.
        left: frames before the present one; None: kernel_size - 1, causal.
        silu: apply SiLU to the result.
    """

    def __init__(
        self, channels: int, kernel_size: int, left: int | None = None, silu: bool = False
    ):
        super().__init__()
        self.left = left
        self.silu = silu
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """PyTorch's own initialisation of a grouped Conv1d."""
        bound = 1 / math.sqrt(self.weight.size(2))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    # Xavier counts every channel as fan-in and would make a depthwise kernel several times too
    # small, so `init:` in an ESPnet configuration does not touch it.
    espnet_initialization_fn = reset_parameters

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Convolve x (batch, time, channel); lengths (batch,) in frames."""
        return depthwise_conv(x, self.weight.squeeze(1), self.bias, self.left, self.silu, lengths)


class ConvModule(nn.Module):
    """LayerNorm, pointwise and GLU, centred depthwise, LayerNorm, activation, pointwise, dropout.

    Conformer's convolution module (arXiv 2005.08100) with LayerNorm for BatchNorm.

    Args:
        d_model: channels.
        kernel_size: odd number of frames under the depthwise kernel.
        activation: elementwise module between the second norm and the last projection.
        dropout_rate: dropout on the result.
        causal: look back only.

    Raises:
        ValueError: the kernel size is even.
    """

    def __init__(
        self,
        d_model: int,
        kernel_size: int,
        activation: nn.Module,
        dropout_rate: float,
        causal: bool = False,
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"cnn_module_kernel is {kernel_size}; it must be odd")
        self.norm = nn.LayerNorm(d_model)
        self.pointwise_in = nn.Linear(d_model, 2 * d_model)
        self.depthwise = DepthwiseConv(d_model, kernel_size, None if causal else kernel_size // 2)
        self.depthwise_norm = nn.LayerNorm(d_model)
        self.activation = activation
        self.pointwise_out = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (batch, time, d_model), lengths (batch,) in frames; returns the residual branch."""
        x = F.glu(self.pointwise_in(self.norm(x)))
        x = self.activation(self.depthwise_norm(self.depthwise(x, lengths)))
        return self.dropout(self.pointwise_out(x))
