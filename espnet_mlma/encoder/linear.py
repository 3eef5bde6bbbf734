"""Linear layers by oneDNN on x86 processors.

PyTorch hands fp32 matrix products to MKL, which on AMD processors runs at half the rate of oneDNN,
the library of the same PyTorch that its compiler takes; `benchmarks/encoder_cpu.py` prints both.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HAS_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
# Below this many input channels, the product that makes the weight's gradient is too thin for
# oneDNN's blocks.
_THIN = 64


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    algorithm = "none" if then == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], algorithm)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        rows, grad_rows = x.flatten(0, -2), grad.flatten(0, -2)
        if ctx.needs_input_grad[0]:
            grad_x = linear(grad, weight.t())
        if ctx.needs_input_grad[1]:
            if weight.size(1) < _THIN:
                grad_weight = grad_rows.t() @ rows
            else:
                grad_weight = linear(grad_rows.t(), rows.t())
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = grad_rows.sum(0)
        return grad_x, grad_weight, grad_bias


def _takes(x: Tensor, weight: Tensor) -> bool:
    return (
        _HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, by oneDNN where that serves.

    Args:
        x: (..., input channel).
        weight: (output channel, input channel).
        bias: (output channel,).
    """
    if _takes(x, weight):
        return _Linear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """GELU of `linear`, in one pass where no gradient is wanted."""
    if _takes(x, weight) and not torch.is_grad_enabled():
        return _product(x, weight, bias, "gelu")
    return F.gelu(linear(x, weight, bias))


class Linear(nn.Linear):
    """`torch.nn.Linear` by oneDNN where that serves."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features); returns (..., out_features)."""
        return linear(x, self.weight, self.bias)
