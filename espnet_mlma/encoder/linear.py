"""Linear layers by oneDNN on x86 processors.

PyTorch hands fp32 matrix products to MKL, which on AMD processors is slower than oneDNN, the
library of the same PyTorch that its compiler takes: a little on Zen 4, and at half the rate on
Zen 5, which has AVX-512 in one piece. `benchmarks/encoder_cpu.py` prints both.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.scan.operators import is_plain

HAS_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
# Below this many input channels, the product that makes the weight's gradient is too thin for
# oneDNN's blocks.
_THIN = 64


# An operator of our own, because the compiler lowers oneDNN's only for weights that never change.
_library = torch.library.Library("espnet_mlma", "FRAGMENT")
_library.define("linear(Tensor x, Tensor weight, Tensor? bias, str then) -> Tensor")


def product(x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    """oneDNN's `linear` of fp32 tensors, without gradients.

    Args:
        x, bias: as for `linear`.
        weight: as for `linear`, or reordered by oneDNN.
        then: `none`, or `gelu` for GELU of the result.
    """
    algorithm = "none" if then == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], algorithm)


def _shape(x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.size(0))


def _save(ctx, inputs, output) -> None:
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias = bias is not None


def _differentiate(ctx, grad):
    x, weight = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    rows, grad_rows = x.flatten(0, -2), grad.flatten(0, -2)
    if ctx.needs_input_grad[0]:
        grad_x = linear(grad, weight.t())
    if ctx.needs_input_grad[1]:
        thin = weight.size(1) < _THIN
        grad_weight = grad_rows.t() @ rows if thin else linear(grad_rows.t(), rows.t())
    if ctx.has_bias and ctx.needs_input_grad[2]:
        grad_bias = grad_rows.sum(0)
    return grad_x, grad_weight, grad_bias, None


_library.impl("linear", product, "CompositeExplicitAutograd")
torch.library.register_fake("espnet_mlma::linear", _shape, lib=_library)
torch.library.register_autograd(
    "espnet_mlma::linear", _differentiate, setup_context=_save, lib=_library
)


def _takes(x: Tensor, weight: Tensor) -> bool:
    return (
        HAS_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _apply(x: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:
    return (product if is_plain() else torch.ops.espnet_mlma.linear)(x, weight, bias, then)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, by oneDNN where that serves.

    Args:
        x: (..., input channel).
        weight: (output channel, input channel).
        bias: (output channel,).
    """
    return _apply(x, weight, bias, "none") if _takes(x, weight) else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` by oneDNN where that serves."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features); returns (..., out_features)."""
        return linear(x, self.weight, self.bias)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU of the result, in one pass where no gradient is wanted."""
        if _takes(x, self.weight) and not torch.is_grad_enabled():
            return _apply(x, self.weight, self.bias, "gelu")
        return F.gelu(self(x))
