"""Run the ConMamba encoder piece by piece, as features arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from espnet_mlma.encoder.conmamba import ConMambaEncoder
from espnet_mlma.encoder.frontend import ConvFrontend, LinearFrontend

if TYPE_CHECKING:
    from espnet2.asr.ctc import CTC


class EncoderStream:
    """Encode one utterance in pieces, with constant memory and time per piece.

    A causal encoder (`bimamba: none`) gives the same frames as one pass over the whole utterance,
    for any pieces. A bidirectional encoder works in chunks. Its forward direction carries its exact
    state from chunk to chunk. Its reverse direction and its convolutions read no further than the
    `right_context` after the chunk.

    Args:
        encoder: an encoder in evaluation mode.
        chunk: encoder frames that become final together; None: all that have arrived.
        right_context: encoder frames after a chunk that are encoded with it.
        ctc: the CTC head, for an encoder with self-conditioning.

    Raises:
        ValueError: the input layer is one of ESPnet's; a number is out of range; or no chunk is
            given, with a bidirectional encoder or right context.
    """

    def __init__(
        self,
        encoder: ConMambaEncoder,
        chunk: int | None = None,
        right_context: int = 0,
        ctc: CTC | None = None,
    ):
        if not isinstance(encoder.frontend, ConvFrontend | LinearFrontend):
            raise ValueError("a stream needs input_layer cnn4, cnn8 or linear")
        if (chunk is not None and chunk < 1) or right_context < 0:
            raise ValueError(f"chunk is {chunk}, right_context {right_context}; give 1, 0 or more")
        if chunk is None and (right_context or not encoder.is_causal()):
            raise ValueError(
                "a bidirectional encoder, and one with right_context, works in chunks; give chunk="
            )
        self.encoder = encoder
        self._frontend = encoder.frontend
        self.chunk = chunk
        self.right_context = right_context
        self.ctc = ctc
        self._states = [block.initial_state() for block in encoder.blocks]
        self._features: Tensor | None = None  # starts one output frame before the next one
        self._dropped = 0  # output frames before self._features
        self._subsampled = 0  # output frames computed by the front-end
        self._waiting: Tensor | None = None  # front-end frames that the blocks have not finished
        self._is_over = False

    @torch.no_grad()
    def push(self, features: Tensor) -> Tensor:
        """Add the next features; return the frames that are now final.

        Args:
            features: (frame, input_size), any number of frames.

        Returns:
            (frame, output_size); frame may be 0.

        Raises:
            ValueError: the stream is finished.
        """
        return self._advance(features, is_last=False)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the utterance; return the remaining frames, (frame, output_size).

        Raises:
            ValueError: the stream is finished, or has had no features.
        """
        if self._features is None:
            raise ValueError("finish() before any features were pushed")
        last = self._advance(self._features[:0], is_last=True)
        self._is_over = True
        return last

    def forget(self) -> None:
        """Reset the blocks, as at the start of an utterance; the front-end keeps its state."""
        self._states = [block.initial_state() for block in self.encoder.blocks]

    def _advance(self, features: Tensor, is_last: bool) -> Tensor:
        if self._is_over:
            raise ValueError("the stream is finished; a new utterance needs a new one")
        x = self._subsample(features, is_last)
        if self._waiting is not None:
            x = torch.cat([self._waiting, x], dim=1)
        out = [x.new_zeros(0, self.encoder.output_size())]
        while x.size(1):
            keep = x.size(1) if self.chunk is None else min(self.chunk, x.size(1))
            ready = x.size(1) >= keep + self.right_context
            if not is_last and (not ready or keep < (self.chunk or 1)):
                break
            out.append(self._encode(x[:, : keep + self.right_context], keep))
            x = x[:, keep:]
        self._waiting = x.clone()  # a view would keep all earlier frames in memory
        return torch.cat(out)

    def _subsample(self, features: Tensor, is_last: bool) -> Tensor:
        """Compute the front-end's frames that are now final, (1, frame, output_size).

        Frame t reads features less than a stride before and after stride * t. Keeping the features
        from one output frame before the next is therefore enough.
        """
        stride = self._frontend.stride
        kept = self._features
        self._features = features.clone() if kept is None else torch.cat([kept, features])
        known = self._features.size(0)
        last = self._dropped + (-(-known // stride) if is_last else known // stride)
        first = self._subsampled
        if last <= first:
            return self._features.new_zeros(1, 0, self.encoder.output_size())
        lengths = torch.tensor([known], device=features.device)
        x, _ = self._frontend(self._features[None], lengths)
        x = x[:, first - self._dropped : last - self._dropped]
        self._subsampled = last
        drop = max(last - 1 - self._dropped, 0)
        self._features = self._features[drop * stride :].clone()
        self._dropped += drop
        return x

    def _encode(self, x: Tensor, keep: int) -> Tensor:
        """Encode x (1, frame, output_size); return its first `keep` frames."""
        for number, block in enumerate(self.encoder.blocks, start=1):
            x, self._states[number - 1] = block.step(x, self._states[number - 1], keep)
            x, _ = self.encoder.condition(number, x, self.ctc)
        return self.encoder.after_norm(x)[0, :keep]
