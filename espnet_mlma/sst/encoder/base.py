"""Define the interface of a streaming speech encoder, the adapter after it, and their stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.grid import CHUNK_FRAMES, CHUNK_SAMPLES, CHUNK_VECTORS


class ChunkEncoder(nn.Module):
    """Encode speech in whole chunks; a frame sees no audio after its own block of chunks.

    Attributes:
        config: dataclass that it was built from.
        output_size: channels of a frame.
        chunk_frames: frames per chunk, CHUNK_VECTORS times a power of two.
    """

    config: Any
    output_size: int
    chunk_frames: int

    def forward(self, speech: Tensor, multiplier: int) -> Tensor:
        """Encode whole utterances; the result equals that of `step` on each block.

        Args:
            speech: (batch, chunks * CHUNK_SAMPLES); chunks is a multiple of `multiplier`.
            multiplier: chunks per block.

        Returns:
            Frames (batch, chunks * chunk_frames, output_size).

        Raises:
            ValueError: the speech is not a whole number of blocks.
        """
        raise NotImplementedError

    def initial_state(self) -> Any:
        """Return the state before a stream's first sample."""
        raise NotImplementedError

    def step(self, samples: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Encode one block of a stream, for inference.

        Args:
            samples: (multiplier * CHUNK_SAMPLES,).
            state: state that the previous step returned; do not use it again.

        Returns:
            Frames (multiplier * chunk_frames, output_size) and the new state. The state's size does
            not grow with the stream.

        Raises:
            ValueError: the samples are not a whole number of chunks.
        """
        raise NotImplementedError


def check_blocks(samples: int, multiplier: int) -> None:
    """Raise ValueError unless `samples` is the length of one or more blocks of chunks.

    Args:
        samples: number of samples.
        multiplier: chunks per block.
    """
    if samples < 1 or samples % (multiplier * CHUNK_SAMPLES):
        raise ValueError(
            f"{samples} samples are not a whole number of blocks of {multiplier} x "
            f"{CHUNK_SAMPLES}; pad with zeros"
        )


class Adapter(nn.Module):
    """Map the frames of each chunk to 12 vectors for the language model.

    Chunks are independent of each other. Each convolution halves the number of frames, so wav2vec
    2.0 with 48 frames per chunk needs two.

    Args:
        input_size: channels of an encoder frame.
        output_size: channels of the language model's embeddings.
        chunk_frames: frames per chunk, see `ChunkEncoder`.

    Raises:
        MlmaError: `chunk_frames` is not 12 times a power of two.

    Source: Ouyang et al., InfiniSST, arXiv 2503.02969; LayerNorm and GELU follow its public code.
    """

    def __init__(self, input_size: int, output_size: int, chunk_frames: int = CHUNK_FRAMES):
        super().__init__()
        halvings = (chunk_frames // CHUNK_VECTORS).bit_length() - 1
        if chunk_frames < 1 or chunk_frames != CHUNK_VECTORS << max(halvings, 0):
            raise MlmaError(
                f"the encoder gives {chunk_frames} frames in 960 ms, not {CHUNK_VECTORS} times a "
                "power of two; choose hop_length and input_layer for 12, 24, 48 or 96 frames"
            )
        self.convolutions = nn.ModuleList(
            nn.Conv1d(input_size, input_size, 2, stride=2, bias=False) for _ in range(halvings)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(input_size) for _ in range(halvings))
        self.activation = nn.GELU()
        self.projection = nn.Linear(input_size, output_size)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames to vectors.

        Args:
            frames: (batch, chunks * chunk_frames, input_size).

        Returns:
            (batch, chunks * 12, output_size).
        """
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            frames = convolution(frames.transpose(1, 2)).transpose(1, 2)
            frames = self.activation(norm(frames))
        return self.projection(frames)


class SpeechStream:
    """Run encoder and adapter on one stream: samples in, vectors out in blocks.

    The multiplier sets the latency: a block is encoded once all its chunks are there, and its
    frames see each other. It can change at any time and then applies to all blocks not returned
    yet.

    Args:
        encoder: encoder in evaluation mode.
        adapter: adapter in evaluation mode.
        multiplier: chunks per block.

    Raises:
        MlmaError: the multiplier is below 1.
    """

    def __init__(self, encoder: ChunkEncoder, adapter: Adapter, multiplier: int = 1):
        self._encoder = encoder
        self._adapter = adapter
        self.multiplier = multiplier
        self._like = adapter.projection.weight  # for device and dtype
        self._state = encoder.initial_state()
        self._pieces: list[Tensor] = []  # concatenated per block, because pieces may be tiny
        self._waiting = 0  # number of samples in the pieces
        self._is_over = False

    @property
    def multiplier(self) -> int:
        """Chunks per block, from the next block on."""
        return self._multiplier

    @multiplier.setter
    def multiplier(self, value: int) -> None:
        if value < 1:
            raise MlmaError(f"the multiplier is {value}; it must be at least 1 chunk of 960 ms")
        self._multiplier = value

    @torch.no_grad()
    def push(self, samples: Tensor) -> list[Tensor]:
        """Add samples and encode the blocks that are complete.

        Args:
            samples: (time,) at 16 kHz, any number.

        Returns:
            Vectors (multiplier * 12, output_size) of each complete block.

        Raises:
            ValueError: the stream is finished, or the samples have several channels.
        """
        self._check_open()
        if samples.dim() != 1:
            raise ValueError(f"samples have shape {tuple(samples.shape)}; give (time,)")
        self._pieces.append(samples.to(self._like, copy=True))
        self._waiting += len(samples)
        block = self.multiplier * CHUNK_SAMPLES
        if self._waiting < block:
            return []
        *blocks, rest = torch.cat(self._pieces).split(block)
        if len(rest) == block:
            blocks, rest = [*blocks, rest], rest[:0]
        self._pieces, self._waiting = [rest.clone()], len(rest)
        return [self._encode(samples) for samples in blocks]

    @torch.no_grad()
    def finish(self) -> Tensor | None:
        """End the stream and encode the remaining samples, padded with zeros to a whole block.

        Returns:
            Vectors (multiplier * 12, output_size), or None if no samples remain.

        Raises:
            ValueError: the stream is already finished.
        """
        self._check_open()
        self._is_over = True
        if not self._waiting:
            return None
        rest = torch.cat(self._pieces)
        missing = -len(rest) % (self.multiplier * CHUNK_SAMPLES)
        return self._encode(nn.functional.pad(rest, (0, missing)))

    def _check_open(self) -> None:
        if self._is_over:
            raise ValueError("the stream is finished; make a new one for the next talk")

    def _encode(self, samples: Tensor) -> Tensor:
        frames, self._state = self._encoder.step(samples, self._state)
        return self._adapter(frames[None])[0]
