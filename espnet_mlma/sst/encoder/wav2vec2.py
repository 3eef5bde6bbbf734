"""Stream wav2vec 2.0: causal between blocks of chunks, exact, in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.encoder.base import ChunkEncoder, check_blocks
from espnet_mlma.sst.grid import CHUNK_SAMPLES

KeysValues = tuple[Tensor, Tensor]
"""Unrotated keys and values of one layer, each (batch, head, frame, channel)."""

_ROPE_THETA = 10000.0


@dataclass(frozen=True)
class Wav2Vec2Config:
    """Configure the model; the default sizes are those of wav2vec 2.0 Large.

    Attributes:
        conv_channels: channels of each layer of the CNN.
        conv_kernels, conv_strides: of each layer, in its input frames; in samples for the first.
        conv_bias: whether the CNN's convolutions have a bias.
        d_model: channels of the transformer.
        num_layers: layers of the transformer.
        num_heads: attention heads.
        linear_units: channels inside the feed-forward layers.
        layer_norm_eps: epsilon of all LayerNorms.
        dropout: on attention weights, inside feed-forward layers and on each residual branch, in
            training; 0.1 as in wav2vec2-large-960h-lv60-self. There is no LayerDrop, because a
            stream keeps the keys of all layers.
        window_chunks: size w of the attention window.
        window_unit: `chunk`, as in the paper: a block sees itself and the w - 1 chunks before it,
            w = 10. `frame`, as in the public code: a frame sees from w chunks before itself to the
            end of its block, w = 12.
        gradient_checkpointing: recompute each layer in the backward pass to save memory.
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
            raise MlmaError(
                "conv_channels, conv_kernels and conv_strides differ in length; give one of each "
                "per layer"
            )
        if CHUNK_SAMPLES % self.stride:
            raise MlmaError(
                f"conv_strides multiply to {self.stride} samples; it must divide a chunk of "
                f"{CHUNK_SAMPLES}, as wav2vec 2.0's 320 does"
            )
        if self.d_model % (2 * self.num_heads):
            raise MlmaError(
                f"d_model is {self.d_model}; it must be {self.num_heads} heads of even size"
            )
        if not 0 <= self.dropout < 1:
            raise MlmaError(f"dropout is {self.dropout}; it must be 0 or more and below 1")
        if self.window_chunks < 1 or self.window_unit not in ("chunk", "frame"):
            raise MlmaError(
                f"window is {self.window_chunks} x {self.window_unit!r}; window_chunks must be 1 "
                "or more, and window_unit chunk or frame"
            )

    @property
    def stride(self) -> int:
        """Samples between successive frames."""
        return math.prod(self.conv_strides)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of the CNN reads."""
        samples, step = 1, 1
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            samples += (kernel - 1) * step
            step *= stride
        return samples


class Wav2Vec2State(NamedTuple):
    """Hold the state of a stream between blocks; it has no absolute position.

    Attributes:
        samples: last samples, which the next frame reads too, (receptive_field - 1,).
        past: for each layer, keys and values of the frames that the next block sees.
    """

    samples: Tensor
    past: tuple[KeysValues, ...]


class ChunkWav2Vec2(ChunkEncoder):
    """Encode chunks with wav2vec 2.0 and block-wise attention over a sliding window.

    A stream starts with 399 zeros, one sample less than a frame reads. A chunk therefore gives 48
    frames, and frame t of the CNN reads no sample after sample 320 t. In the transformer, a frame
    sees its whole block of `multiplier` chunks and the window before it. Positions are rotary: keys
    are stored unrotated and rotated when read, with the oldest stored frame at position 0. The
    angle between two frames depends only on their distance, however long the stream is.

    Differences from the original: no convolutional positional embedding, because it looks ahead;
    no CTC head; no normalisation of the waveform, because it needs the whole recording.

    Args:
        config: sizes, window and options.

    Raises:
        MlmaError: the sizes are inconsistent.

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
        """See `ChunkEncoder`."""
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

    def initial_state(self) -> Wav2Vec2State:
        """See `ChunkEncoder`; the stream starts with zeros and no past frames."""
        weight, heads = self.projection.weight, self.config.num_heads
        empty = weight.new_zeros(1, heads, 0, self.config.d_model // heads)
        past = ((empty, empty),) * len(self.layers)
        return Wav2Vec2State(weight.new_zeros(self.config.receptive_field - 1), past)

    def step(self, samples: Tensor, state: Wav2Vec2State) -> tuple[Tensor, Wav2Vec2State]:
        """See `ChunkEncoder`."""
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
        return self.norm(x)[0], Wav2Vec2State(carry, tuple(past))

    def rotation(self, frames: int) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the rotary angles, each (frames, channels of a head / 2)."""
        pairs = self.config.d_model // self.config.num_heads // 2
        # In single precision, angles of thousands of radians are off in the fourth decimal.
        frequencies = _ROPE_THETA ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        angles = torch.outer(torch.arange(frames, dtype=torch.float64), frequencies)
        device = self.projection.weight.device
        return angles.cos().to(device, torch.float32), angles.sin().to(device, torch.float32)

    def _frames(self, samples: Tensor) -> Tensor:
        """Return the input of the first layer, (batch, frame, d_model), from (batch, time)."""
        x = samples[:, None]
        for layer in self.cnn:
            x = layer(x)
        return self.dropout(self.projection(self.projection_norm(x.transpose(1, 2))))

    @property
    def _kept(self) -> int:
        """Number of frames before a block that its first frame sees."""
        is_whole = self.config.window_unit == "chunk"
        return (self.config.window_chunks - is_whole) * self.chunk_frames

    def _recent(self, x: Tensor) -> Tensor:
        """Return the frames of (batch, head, frame, channel) that the next block sees."""
        return x[:, :, max(x.size(2) - self._kept, 0) :].clone()  # a view would keep all in memory

    def _mask(self, queries: int, keys: int, block: int) -> Tensor | None:
        """Return which frame sees which, (queries, keys); None: each sees all.

        Args:
            queries: number of querying frames, the last of the keys.
            keys: number of frames that can be seen.
            block: frames per block; the first query starts a block.
        """
        is_whole = self.config.window_unit == "chunk"
        if is_whole and queries == block:
            return None  # the keys are exactly the window
        device = self.projection.weight.device
        query = torch.arange(queries, device=device)[:, None]
        key = torch.arange(keys, device=device) - (keys - queries)
        start = query // block * block
        return (key < start + block) & (key >= (start if is_whole else query) - self._kept)


class ConvLayer(nn.Module):
    """Apply a convolution over time, LayerNorm of each frame, and GELU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, config: Wav2Vec2Config):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=config.conv_bias)
        self.norm = nn.LayerNorm(outputs, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channel, time) to (batch, channel, time)."""
        x = self.norm(self.conv(x).transpose(1, 2)).transpose(1, 2)
        return F.gelu(x)


class TransformerLayer(nn.Module):
    """Apply attention and a feed-forward layer, each pre-normalised and residual."""

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
        """Map x, (batch, frame, d_model); see `Attention.forward`."""
        mixed, seen = self.attention(self.attention_norm(x), rotation, mask, past)
        x = x + self.dropout(mixed)
        hidden = self.dropout(F.gelu(self.ffn_in(self.ffn_norm(x))))
        return x + self.dropout(self.ffn_out(hidden)), seen


class Attention(nn.Module):
    """Apply multi-head attention with rotary positions to new and stored frames."""

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
        """Attend from the new frames to the stored and new frames.

        Args:
            x: new frames, (batch, frame, d_model).
            rotation: `ChunkWav2Vec2.rotation` of all frames.
            mask: True where a frame sees another, (frame, all frames); None: everywhere.
            past: stored keys and values; None: there are none.

        Returns:
            Output (batch, frame, d_model), and keys and values of all frames.
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
    """Rotate each pair of adjacent channels by its frame's angle.

    Args:
        x: (..., frame, channel).
        cos, sin: cosine and sine of the angles, (frame, channel / 2).
    """
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return rotated.flatten(-2).to(x.dtype)
