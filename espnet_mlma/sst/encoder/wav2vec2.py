"""wav2vec 2.0 made causal in chunks: exact streams of any length, in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.encoder.base import check_blocks
from espnet_mlma.sst.grid import CHUNK_SAMPLES

KeysValues = tuple[Tensor, Tensor]
"""Keys, not rotated, and values of one layer, each (batch, head, frame, channel)."""

_ROPE_THETA = 10000.0


@dataclass(frozen=True)
class Wav2Vec2Config:
    """Sizes of the model, by default those of wav2vec 2.0 Large, and how far back it looks.

    Attributes:
        conv_channels, conv_kernels, conv_strides: of each layer of the CNN; strides and kernels in
            what the layer reads, the first in samples.
        conv_bias: whether the CNN's convolutions have a bias.
        d_model, num_layers, num_heads, linear_units: of the transformer.
        layer_norm_eps: of all LayerNorms.
        dropout: in training, of attention weights, of the inside of a feed-forward layer and of
            what each residual branch adds; 0.1 as in the configuration of
            wav2vec2-large-960h-lv60-self. Layers are never dropped: a stream keeps keys of all.
        window_chunks: the w of the window.
        window_unit: `chunk`, the paper's: a block sees itself and the w - 1 chunks before it, with
            w = 10. `frame`, the public code's: a frame sees from w chunks before itself to the end
            of its block, with w = 12.
        gradient_checkpointing: recompute each layer in the backward pass.
    """

    conv_channels: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = True
    d_model: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    linear_units: int = 4096
    layer_norm_eps: float = 1e-5
    dropout: float = 0.1
    window_chunks: int = 10
    window_unit: Literal["chunk", "frame"] = "chunk"
    gradient_checkpointing: bool = False

    def __post_init__(self):
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise MlmaError("conv_channels, conv_kernels and conv_strides differ in length")
        if CHUNK_SAMPLES % self.stride:
            raise MlmaError(
                f"conv_strides multiply to {self.stride} samples, of which {CHUNK_SAMPLES}, a "
                "chunk, is no multiple; wav2vec 2.0 has 320"
            )
        if self.d_model % (2 * self.num_heads):
            raise MlmaError(f"d_model {self.d_model} is not {self.num_heads} heads of even size")
        if not 0 <= self.dropout < 1:
            raise MlmaError(f"dropout is {self.dropout}; it must be 0 or more and below 1")
        if self.window_chunks < 1 or self.window_unit not in ("chunk", "frame"):
            raise MlmaError(
                f"window is {self.window_chunks} x {self.window_unit!r}; give window_chunks of 1 "
                "or more, and window_unit chunk or frame"
            )

    @property
    def stride(self) -> int:
        """Samples from frame to frame."""
        return math.prod(self.conv_strides)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of the CNN reads."""
        reach, step = 1, 1
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            reach += (kernel - 1) * step
            step *= stride
        return reach


class State(NamedTuple):
    """What a stream carries from block to block; nothing in it counts how much was heard.

    Attributes:
        samples: the last that the next frame reads, (receptive_field - 1,).
        past: of each layer, of the frames the next block sees.
    """

    samples: Tensor
    past: tuple[KeysValues, ...]


class ChunkWav2Vec2(nn.Module):
    """wav2vec 2.0 Large with attention in blocks over a sliding window, and rotary positions.

    A stream begins with 399 zeros, one sample less than a frame reads, so a chunk gives 48 frames,
    and frame t of the CNN reads no sample after number 320 t. In the transformer a frame sees its
    whole block of `multiplier` chunks and the window before it. Keys are kept as they are and
    rotated when read, the oldest kept frame being at position 0: the angle between two frames
    depends on their distance alone, after hours as in the first second.

    Against the original: no convolutional positional embedding, which looks ahead, no CTC head, and
    no normalisation of the waveform, which would need all of it.

    Args:
        config: sizes, window, options.

    Raises:
        MlmaError: the sizes do not go together.

    Source: Baevski et al., wav2vec 2.0, arXiv 2006.11477; Ouyang et al., InfiniSST, arXiv
        2503.02969; Su et al., RoFormer, arXiv 2104.09864.
    """

    def __init__(self, config: Wav2Vec2Config):
        super().__init__()
        self.config = config
        self.output_size = config.d_model
        self.chunk_frames = CHUNK_SAMPLES // config.stride
        channels = config.conv_channels
        inputs = (1, *channels[:-1])
        sizes = zip(inputs, channels, config.conv_kernels, config.conv_strides, strict=True)
        self.cnn = nn.ModuleList(ConvLayer(*size, config) for size in sizes)
        self.projection_norm = nn.LayerNorm(channels[-1], config.layer_norm_eps)
        self.projection = nn.Linear(channels[-1], config.d_model)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, speech: Tensor, multiplier: int) -> Tensor:
        """As of `ChunkEncoder`: the frames that `step` gives, all at once."""
        check_blocks(speech.size(1), multiplier)
        x = self._frames(F.pad(speech, (self.config.receptive_field - 1, 0)))
        frames, block = x.size(1), multiplier * self.chunk_frames
        rotation, mask = self.rotation(frames), self._mask(frames, frames, block)
        for layer in self.layers:
            if self.config.gradient_checkpointing and torch.is_grad_enabled():
                x, _ = checkpoint(layer, x, rotation, mask, use_reentrant=False)
            else:
                x, _ = layer(x, rotation, mask)
        return self.norm(x)

    def initial_state(self) -> State:
        """As of `ChunkEncoder`: silence, and no frames."""
        weight, heads = self.projection.weight, self.config.num_heads
        nothing = weight.new_zeros(1, heads, 0, self.config.d_model // heads)
        past = ((nothing, nothing),) * len(self.layers)
        return State(weight.new_zeros(self.config.receptive_field - 1), past)

    def step(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        """As of `ChunkEncoder`."""
        check_blocks(len(samples), 1)
        samples = torch.cat([state.samples, samples])
        x = self._frames(samples[None])
        queries = x.size(1)
        keys = queries + state.past[0][0].size(2)
        rotation, mask = self.rotation(keys), self._mask(queries, keys, queries)
        past = []
        for layer, before in zip(self.layers, state.past, strict=True):
            x, (key, value) = layer(x, rotation, mask, before)
            past.append((self._recent(key), self._recent(value)))
        carry = samples[-len(state.samples) :].clone()
        return self.norm(x)[0], State(carry, tuple(past))

    def rotation(self, frames: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each position's angles, both (frame, channel of a head / 2)."""
        pairs = self.config.d_model // self.config.num_heads // 2
        # In single precision an angle of thousands has lost its fourth decimal.
        frequencies = _ROPE_THETA ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        angles = torch.outer(torch.arange(frames, dtype=torch.float64), frequencies)
        device = self.projection.weight.device
        return angles.cos().to(device, torch.float32), angles.sin().to(device, torch.float32)

    def _frames(self, samples: Tensor) -> Tensor:
        """(batch, time) to what the first layer reads, (batch, frame, d_model)."""
        x = samples[:, None]
        for layer in self.cnn:
            x = layer(x)
        return self.dropout(self.projection(self.projection_norm(x.transpose(1, 2))))

    @property
    def _kept(self) -> int:
        """Frames before a block that its first frame sees."""
        is_whole = self.config.window_unit == "chunk"
        return (self.config.window_chunks - is_whole) * self.chunk_frames

    def _recent(self, x: Tensor) -> Tensor:
        """The frames of (batch, head, frame, channel) that the next block sees."""
        return x[:, :, max(x.size(2) - self._kept, 0) :].clone()  # a view would keep them all

    def _mask(self, queries: int, keys: int, block: int) -> Tensor | None:
        """Who sees whom, (query, key); None: everyone sees all.

        Args:
            queries: frames that look, the last of the keys.
            keys: frames that are seen.
            block: frames of a block; the first query begins one.
        """
        is_whole = self.config.window_unit == "chunk"
        if is_whole and queries == block:
            return None  # no more than the window is kept
        device = self.projection.weight.device
        query = torch.arange(queries, device=device)[:, None]
        key = torch.arange(keys, device=device) - (keys - queries)
        start = query // block * block
        return (key < start + block) & (key >= (start if is_whole else query) - self._kept)


class ConvLayer(nn.Module):
    """Convolution over time, LayerNorm of each frame, GELU; (batch, channel, time) in and out."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, config: Wav2Vec2Config):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=config.conv_bias)
        self.norm = nn.LayerNorm(outputs, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time) in and out."""
        x = self.norm(self.conv(x).transpose(1, 2)).transpose(1, 2)
        return F.gelu(x)


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each behind a LayerNorm and beside a residual path."""

    def __init__(self, config: Wav2Vec2Config):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.LayerNorm(config.d_model, config.layer_norm_eps)
        self.ffn_in = nn.Linear(config.d_model, config.linear_units)
        self.ffn_out = nn.Linear(config.linear_units, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """x (batch, frame, d_model); the rest as of `Attention`."""
        mixed, seen = self.attention(self.attention_norm(x), rotation, mask, past)
        x = x + self.dropout(mixed)
        hidden = self.dropout(F.gelu(self.ffn_in(self.ffn_norm(x))))
        return x + self.dropout(self.ffn_out(hidden)), seen


class Attention(nn.Module):
    """Multi-head attention with rotary positions over frames of now and frames that are kept."""

    def __init__(self, config: Wav2Vec2Config):
        super().__init__()
        self.heads = config.num_heads
        self.dropout = config.dropout
        self.query, self.key, self.value, self.out = (
            nn.Linear(config.d_model, config.d_model) for _ in range(4)
        )

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """Attend from the frames of x to those of the past and of x.

        Args:
            x: (batch, frame, d_model).
            rotation: of all frames that are seen, see `ChunkWav2Vec2.rotation`.
            mask: True where a frame sees another, (frame, all frames); None: everywhere.
            past: keys and values before x; None: there are none.

        Returns:
            (batch, frame, d_model), and the keys and values of all frames.
        """
        query, key, value = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        cos, sin = rotation
        y = F.scaled_dot_product_attention(
            rotate(query, cos[-x.size(1) :], sin[-x.size(1) :]),
            rotate(key, cos, sin),
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(y.transpose(1, 2).flatten(2)), (key, value)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels by its frame's angle.

    Args:
        x: (..., frame, channel).
        cos, sin: of the angles, (frame, channel / 2).
    """
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
