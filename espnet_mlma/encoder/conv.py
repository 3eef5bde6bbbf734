"""The depthwise convolution as a module, and the convolution module of a block.

Sequences are packed: x is (1, frame, channel), and `rows` say where each sequence lies. `step`
processes one sequence in pieces.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.encoder.dropout import Dropout
from espnet_mlma.encoder.linear import Linear
from espnet_mlma.scan import Rows, depthwise_conv


class DepthwiseConv(nn.Module):
    """Convolve each channel over time with its own kernel, within each sequence.

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
        """Initialise as PyTorch does for a grouped Conv1d."""
        bound = 1 / math.sqrt(self.weight.size(2))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    # Xavier counts every channel as fan-in and makes a depthwise kernel several times too small. So
    # this hook undoes what `init:` in an ESPnet configuration did.
    espnet_initialization_fn = reset_parameters

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Convolve x (1, frame, channel), each sequence by itself."""
        weight = self.weight.squeeze(1)
        return depthwise_conv(x, weight, self.bias, self.left, self.silu, rows=rows)

    def initial_state(self) -> Tensor:
        """Return the frames before a sequence: zeros, (1, left, channel)."""
        channels, _, kernel_size = self.weight.shape
        return self.weight.new_zeros(
            1, kernel_size - 1 if self.left is None else self.left, channels
        )

    def step(self, x: Tensor, state: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Convolve the next piece of a sequence.

        Args:
            x: the piece and the known frames after it, (1, frame, channel).
            state: the frames before the piece, from `initial_state` or the previous step.
            keep: frames of the piece; the next one begins after them.

        Returns:
            (1, frame, channel), and the state for the next piece.
        """
        before = state.size(1)
        x = torch.cat([state, x], dim=1)
        y = self(x, Rows.whole(x))[:, before:]
        return y, x[:, keep : keep + before]


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
        self.pointwise_in = Linear(d_model, 2 * d_model)
        self.depthwise = DepthwiseConv(d_model, kernel_size, None if causal else kernel_size // 2)
        self.depthwise_norm = nn.LayerNorm(d_model)
        self.activation = activation
        self.pointwise_out = Linear(d_model, d_model)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Compute the residual branch for x (1, frame, d_model); rows say where sequences lie."""
        return self._end(self.depthwise(self._begin(x), rows))

    def step(self, x: Tensor, state: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Compute the residual branch for the next piece; see `DepthwiseConv.step`."""
        x, state = self.depthwise.step(self._begin(x), state, keep)
        return self._end(x), state

    def _begin(self, x: Tensor) -> Tensor:
        return F.glu(self.pointwise_in(self.norm(x)))

    def _end(self, x: Tensor) -> Tensor:
        return self.dropout(self.pointwise_out(self.activation(self.depthwise_norm(x))))
