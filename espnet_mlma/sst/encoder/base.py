"""What a speech encoder of the translator is, the adapter behind it, and a stream through both."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.grid import CHUNK_FRAMES, CHUNK_SAMPLES, CHUNK_VECTORS


class ChunkEncoder(Protocol):
    """A causal encoder of whole chunks; frames see no audio after their own block of chunks.

    Attributes:
        output_size: channels of a frame.
        chunk_frames: frames of a chunk, CHUNK_VECTORS times a power of two.
    """

    output_size: int
    chunk_frames: int

    def forward(self, speech: Tensor, multiplier: int) -> Tensor:
        """All of an utterance at once, as `step` would give it piece by piece.

        Args:
            speech: (batch, chunks * CHUNK_SAMPLES); chunks are a multiple of `multiplier`.
            multiplier: chunks of a block.

        Returns:
            (batch, chunks * chunk_frames, output_size).

        Raises:
            ValueError: the speech is no whole number of blocks.
        """

    def initial_state(self) -> Any:
        """The state before a stream's first sample."""

    def step(self, samples: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One block of one stream; for inference.

        Args:
            samples: (multiplier * CHUNK_SAMPLES,).
            state: what the step before returned; it is used up.

        Returns:
            Frames (multiplier * chunk_frames, output_size), and the state after them. The state's
            size has a bound that does not depend on how much was heard.

        Raises:
            ValueError: the samples are no whole number of chunks.
        """


def check_blocks(samples: int, multiplier: int) -> None:
    """Raise ValueError unless so many samples are one or more blocks of `multiplier` chunks."""
    if samples < 1 or samples % (multiplier * CHUNK_SAMPLES):
        raise ValueError(
            f"{samples} samples are no whole number of blocks of {multiplier} x {CHUNK_SAMPLES}; "
            "pad with zeros"
        )


class Adapter(nn.Module):
    """12 vectors of an LLM for the frames of a chunk; no state crosses a chunk.

    Each convolution halves the frames: two of them for wav2vec 2.0's 48 frames a chunk.

    Args:
        input_size: channels of an encoder frame.
        output_size: of the LLM's embeddings.
        chunk_frames: frames of a chunk, as the encoder's attribute says.

    Raises:
        MlmaError: `chunk_frames` is not 12, 24, 48, ...

    Source: Ouyang et al., InfiniSST, arXiv 2503.02969; LayerNorm and GELU are in its public code.
    """

    def __init__(self, input_size: int, output_size: int, chunk_frames: int = CHUNK_FRAMES):
        super().__init__()
        halvings = (chunk_frames // CHUNK_VECTORS).bit_length() - 1
        if chunk_frames < 1 or chunk_frames != CHUNK_VECTORS << max(halvings, 0):
            raise MlmaError(
                f"the encoder gives {chunk_frames} frames in 960 ms, which halving does not bring "
                f"to {CHUNK_VECTORS}; choose a hop_length and an input_layer for 12, 24, 48 or 96"
            )
        self.convolutions = nn.ModuleList(
            nn.Conv1d(input_size, input_size, 2, stride=2, bias=False) for _ in range(halvings)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(input_size) for _ in range(halvings))
        self.activation = nn.GELU()
        self.projection = nn.Linear(input_size, output_size)

    def forward(self, frames: Tensor) -> Tensor:
        """(batch, chunks * chunk_frames, input_size) to (batch, chunks * 12, output_size)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            frames = convolution(frames.transpose(1, 2)).transpose(1, 2)
            frames = self.activation(norm(frames))
        return self.projection(frames)


class EncoderStream:
    """Encoder and adapter for one stream: samples in as they are heard, vectors out in blocks.

    The multiplier is the latency: a block of so many chunks is waited for, and its frames see each
    other. It may be changed at any time and then applies to all blocks not yet returned.

    Args:
        encoder: in evaluation mode.
        adapter: behind it, in evaluation mode.
        multiplier: chunks of a block.

    Raises:
        MlmaError: the multiplier is below 1.
    """

    def __init__(self, encoder: ChunkEncoder, adapter: Adapter, multiplier: int = 1):
        self._encoder = encoder
        self._adapter = adapter
        self.multiplier = multiplier
        self._like = adapter.projection.weight  # for device and dtype
        self._state = encoder.initial_state()
        self._pieces: list[Tensor] = []  # joined once a block is there: pieces may be tiny
        self._waiting = 0  # samples of the pieces
        self._is_over = False

    @property
    def multiplier(self) -> int:
        """Chunks of the next block."""
        return self._multiplier

    @multiplier.setter
    def multiplier(self, value: int) -> None:
        if value < 1:
            raise MlmaError(f"the multiplier is {value}; give 1 chunk of 960 ms or more")
        self._multiplier = value

    @torch.no_grad()
    def push(self, samples: Tensor) -> list[Tensor]:
        """Take the next samples.

        Args:
            samples: (time,) at 16 kHz, any number of them.

        Returns:
            One tensor (multiplier * 12, output_size) for each block that is now full.

        Raises:
            ValueError: the stream is finished, or the samples are not one channel.
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
        """The audio is over: the vectors of what was waiting, filled with zeros to a whole block.

        Returns:
            (multiplier * 12, output_size), or None if nothing was waiting.

        Raises:
            ValueError: the stream is finished already.
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
            raise ValueError("the stream is finished; a new talk needs a new one")

    def _encode(self, samples: Tensor) -> Tensor:
        frames, self._state = self._encoder.step(samples, self._state)
        return self._adapter(frames[None])[0]
