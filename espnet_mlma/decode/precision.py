"""Linear layers prepared for recognition on a CPU: packed, in float32, bfloat16 or int8."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.encoder.bimamba import SelectiveBranch
from espnet_mlma.encoder.linear import HAS_ONEDNN, Linear, product
from espnet_mlma.errors import MlmaError

Precision = Literal["float32", "bfloat16", "int8"]
# In thinner layers the conversion of the input costs more than the product gains.
_LEAST_CHANNELS = 64


class _Replacement(nn.Module):
    """Replace a `Linear`; the weights are no parameters any more.

    Args:
        layer: the layer to replace.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.size = sum(parameter.numel() for parameter in layer.parameters())
        self.bias = None if layer.bias is None else layer.bias.detach()

    def gelu(self, x: Tensor) -> Tensor:
        """Return GELU of the layer's result."""
        return F.gelu(self(x))


class PackedLinear(_Replacement):
    """Keep the weights in oneDNN's layout; the arithmetic is that of `Linear`."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in_features) to (..., out_features)."""
        return product(x, self.weight, self.bias, "none")

    def gelu(self, x: Tensor) -> Tensor:
        """Return GELU of the layer's result, in one pass."""
        return product(x, self.weight, self.bias, "gelu")


class BFloat16Linear(_Replacement):
    """Round weights and inputs to bfloat16; sums and results are float32."""

    def __init__(self, layer: nn.Linear):
        super().__init__(layer)
        self.weight = layer.weight.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in_features) to (..., out_features)."""
        y = F.linear(x.bfloat16(), self.weight).float()
        return y if self.bias is None else y.add_(self.bias)


class Int8Linear(_Replacement):
    """Use PyTorch's dynamic quantisation to int8.

    Weights are scaled by output channel, inputs once a call, so that an utterance's result depends
    a little on its batch.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__(layer)
        weight = layer.weight.detach()
        scales = (weight.abs().amax(1) / 127).clamp(min=1e-8).double()
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings():
            # Its successor, torchao, is fast on a CPU only under torch.compile.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(rounded, self.bias)
        # Without VNNI instructions sums of 8-bit inputs saturate in 16 bits; 7 bits do not.
        self.reduce_range = not torch.cpu._is_vnni_supported()

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in_features) to (..., out_features)."""
        return torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)


_LAYERS = {"float32": PackedLinear, "bfloat16": BFloat16Linear, "int8": Int8Linear}


def prepare_linear_layers(encoder: nn.Module, precision: Precision) -> None:
    """Replace the large linear layers of our encoder in place; it cannot be trained afterwards.

    The projections to Mamba's step size, B and C are thin and sensitive, and stay.

    Args:
        encoder: in evaluation mode, on the CPU.
        precision: of weights and inputs.

    Raises:
        MlmaError: the precision is unknown, or PyTorch, the processor or the encoder lacks it.
    """
    if precision not in _LAYERS:
        raise MlmaError(f"precision is {precision!r}; choose float32, bfloat16 or int8")
    if precision == "int8" and not hasattr(torch, "quantize_per_channel"):
        raise MlmaError(
            f"precision int8: PyTorch {torch.__version__} has no quantised layers; try bfloat16"
        )
    if precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise MlmaError("precision bfloat16: this processor has no instructions for it; try int8")
    if precision == "float32" and not HAS_ONEDNN:
        return
    replaced = 0
    for parent in list(encoder.modules()):
        if isinstance(parent, SelectiveBranch):
            continue
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear) and min(layer.weight.shape) >= _LEAST_CHANNELS:
                setattr(parent, name, _LAYERS[precision](layer))
                replaced += 1
    if precision != "float32" and not replaced:
        raise MlmaError(
            f"precision {precision}: {type(encoder).__name__} has no layer to convert; give a "
            f"ConMamba encoder with at least {_LEAST_CHANNELS} channels, or use float32"
        )


def count_parameters(model: nn.Module) -> int:
    """Count a model's parameters, those of replaced layers included."""
    replaced = (layer.size for layer in model.modules() if isinstance(layer, _Replacement))
    return sum(replaced) + sum(parameter.numel() for parameter in model.parameters())
