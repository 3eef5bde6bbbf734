"""Front-ends: subsample feature frames for the blocks; padding never changes the result."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from espnet2.legacy.nets.pytorch_backend.transformer import subsampling
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.encoder.dropout import Dropout
from espnet_mlma.encoder.linear import Linear
from espnet_mlma.scan.rows import valid_frames

_ESPNET = {
    "conv2d": subsampling.Conv2dSubsampling,
    "conv2d2": subsampling.Conv2dSubsampling2,
    "conv2d6": subsampling.Conv2dSubsampling6,
    "conv2d8": subsampling.Conv2dSubsampling8,
}
# Output frames per slab on a CPU and on a GPU. Without gradients a long batch runs in slabs: the
# first layer is 20 times as wide as a block, so an hour of audio would take gigabytes.
_SLAB = (128, 16384)
_CNN_CHANNELS = {"cnn4": (64, 32), "cnn8": (64, 32, 32)}


class FlatLayerNorm(nn.LayerNorm):
    """Normalise over the last axes together, as nn.LayerNorm of the same shape does.

    PyTorch's CUDA backward of a LayerNorm over two axes writes out of bounds, or raises, from
    65,537 rows on (pytorch#192016, #193016). One flattened axis gives the same numbers, and the
    parameters keep their shape, so checkpoints stay valid.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., *normalized_shape) with any leading axes."""
        axes = len(self.normalized_shape)
        flat = x.flatten(-axes)
        weight, bias = self.weight.flatten(), self.bias.flatten()
        return F.layer_norm(flat, weight.shape, weight, bias, self.eps).view(x.shape)


class ConvFrontend(nn.Module):
    """3x3 convolutions of stride 2 in time and frequency, each with LayerNorm and LeakyReLU.

    Frames past the length are zeroed at every layer, so padding never reaches a valid frame. Each
    layer turns n frames into ceil(n / 2).

    Args:
        input_size: features per frame.
        output_size: channels of the final projection.
        channels: output channels of each convolution.
        dropout_rate: dropout after each layer and after the projection.

    Source: the front-end of SpeechBrain's Transformer recipes, which the MLMA paper uses.
    """

    def __init__(
        self, input_size: int, output_size: int, channels: Sequence[int], dropout_rate: float
    ):
        super().__init__()
        self.stride = 2 ** len(channels)
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        before, bins = 1, input_size
        for after in channels:
            bins = (bins + 1) // 2
            self.convs.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.norms.append(FlatLayerNorm([bins, after]))
            before = after
        self.dropout = Dropout(dropout_rate)
        self.out = Linear(bins * before, output_size)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Subsample a batch.

        Args:
            x: features, (batch, time, input_size); time is the longest length.
            lengths: valid frames, (batch,).

        Returns:
            Subsampled frames (batch, time', output_size), and their lengths (batch,).
        """
        slab = max(_SLAB[x.device.type == "cuda"] // x.size(0), 16) * self.stride
        if torch.is_grad_enabled() or x.size(1) <= slab:
            return self._subsample(x, lengths)
        pieces = []
        for start in range(0, x.size(1), slab):
            # A frame reads less than a stride on either side. A piece that begins a stride early
            # therefore gives the same frames, except for its first, which is dropped.
            early = min(start, self.stride)
            piece = x[:, start - early : start + slab]
            left = (lengths - start + early).clamp(0, piece.size(1))
            pieces.append(self._subsample(piece, left)[0][:, early // self.stride :])
        return torch.cat(pieces, dim=1), -(-lengths // self.stride)

    def _subsample(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = x[..., None]  # (batch, time, bins, channel): the layout of channels_last throughout
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if x.size(0) > 1:  # a single utterance has no padding
                valid = valid_frames(lengths, x.size(0), x.size(1), x.device)
                x = x.masked_fill(~valid[..., None, None], 0)
            x = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = F.leaky_relu(norm(x), inplace=not torch.is_grad_enabled())
            x = self.dropout(x)
            lengths = (lengths + 1) // 2
        return self.dropout(self.out(x.flatten(2))), lengths


class LinearFrontend(nn.Module):
    """Project features, with LayerNorm and dropout; no subsampling."""

    stride = 1

    def __init__(self, input_size: int, output_size: int, dropout_rate: float):
        super().__init__()
        self.out = Linear(input_size, output_size)
        self.norm = nn.LayerNorm(output_size)
        self.dropout = Dropout(dropout_rate)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Project x (batch, time, input_size); return it with lengths (batch,) unchanged."""
        return self.dropout(self.norm(self.out(x))), lengths


class ESPnetFrontend(nn.Module):
    """One of ESPnet's convolutional subsamplings, without a positional encoding.

    Its convolutions pad nothing, so a valid output frame never reads beyond its utterance.

    Raises (forward):
        TooShortUttError: ESPnet's own, when the batch is too short for the subsampling.
    """

    def __init__(self, name: str, input_size: int, output_size: int, dropout_rate: float):
        super().__init__()
        self.subsampling = _ESPNET[name](
            input_size, output_size, dropout_rate, pos_enc=Dropout(dropout_rate)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Subsample x (batch, time, input_size) and lengths (batch,) in frames."""
        too_short, limit = subsampling.check_short_utt(self.subsampling, x.size(1))
        if too_short:
            raise subsampling.TooShortUttError(
                f"{x.size(1)} frames are too few for this input_layer; it needs {limit}",
                x.size(1),
                limit,
            )
        valid = valid_frames(lengths, x.size(0), x.size(1), x.device)
        x, mask = self.subsampling(x, valid[:, None])
        return x, mask.squeeze(1).sum(1)


def build_frontend(name: str, input_size: int, output_size: int, dropout_rate: float) -> nn.Module:
    """Build the input layer from its name in the configuration.

    Args:
        name: `cnn4`, `cnn8`, `linear`, or ESPnet's `conv2d`, `conv2d2`, `conv2d6`, `conv2d8`.
        input_size: features per frame.
        output_size: channels out.
        dropout_rate: dropout inside.

    Raises:
        ValueError: an unknown name.
    """
    if name in _CNN_CHANNELS:
        return ConvFrontend(input_size, output_size, _CNN_CHANNELS[name], dropout_rate)
    if name == "linear":
        return LinearFrontend(input_size, output_size, dropout_rate)
    if name in _ESPNET:
        return ESPnetFrontend(name, input_size, output_size, dropout_rate)
    known = ", ".join([*_CNN_CHANNELS, "linear", *_ESPNET])
    raise ValueError(f"input_layer is {name!r}; choose from {known}")
