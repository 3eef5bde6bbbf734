"""An ESPnet model as a source of emissions: samples in, log-probabilities of symbols out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.errors import MlmaError
from espnet_mlma.text.language import language_of_token

# The longest of ESPnet's input layers need 0.2 s; what is shorter is filled up with silence.
_SHORTEST = SAMPLE_RATE * 3 // 10


class AcousticModel:
    """An ESPnet ASR model with a CTC head.

    Args:
        model: in evaluation mode.
        token_list: the symbols, blank first.
        token_type: `char` or `bpe`.
        device: where to run.

    Raises:
        MlmaError: the model has no CTC head, or its tokens are of another type.
    """

    # Seconds encoded at once while the pauses of longer audio are looked for.
    window_seconds = 12.0
    # Audio up to this length is heard whole, longer audio is cut at its pauses into shorter
    # utterances; None: it is heard by windows alone.
    utterance_seconds: float | None = 12.0

    def __init__(
        self, model: torch.nn.Module, token_list: Sequence[str], token_type: str, device: str
    ):
        if getattr(model, "ctc", None) is None:
            raise MlmaError("the model has no CTC head; train with ctc_weight above 0")
        if token_type not in ("char", "bpe"):
            raise MlmaError(f"token_type is {token_type!r}; this decoder writes char and bpe")
        self.model = model.to(device)
        self.device = device
        self.tokens = tuple(token_list)
        self.token_type = token_type
        languages = {i: language_of_token(token) for i, token in enumerate(self.tokens)}
        self._languages = {i: language for i, language in languages.items() if language}
        # What is written and is no text.
        self.special_ids = frozenset(self._languages)

    @torch.inference_mode()
    def emissions(self, utterances: Sequence[np.ndarray]) -> list[Tensor]:
        """Encode utterances together.

        Args:
            utterances: each (time,) samples at 16 kHz.

        Returns:
            Of each (frames, vocabulary), natural logarithms, on the model's device.
        """
        if not utterances:
            return []
        lengths = torch.tensor([max(len(samples), _SHORTEST) for samples in utterances])
        speech = torch.zeros(len(utterances), int(lengths.max()))
        for row, samples in zip(speech, utterances, strict=True):
            row[: len(samples)] = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        log_probs, frames = self._encode(speech.to(self.device), lengths.to(self.device))
        check_emissions(log_probs)
        return [row[:n] for row, n in zip(log_probs, frames.tolist(), strict=True)]

    def _encode(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (batch, frames, vocabulary) and frames of each utterance (batch,)."""
        encoded, frames = self.model.encode(speech, lengths)
        if isinstance(encoded, tuple):  # with intermediate CTC: (frames, intermediate frames)
            encoded = encoded[0]
        return self.model.ctc.log_softmax(encoded), frames

    @cached_property
    def frame_samples(self) -> int:
        """Samples from one encoder frame to the next.

        Measured, because each of ESPnet's input layers has its own: 1.92 s are a whole number of
        frames of 10, 20, 30, 40, 60 or 80 ms.
        """
        step = round(1.92 * SAMPLE_RATE)
        try:
            return step // (self._frames_of(2 * step) - self._frames_of(step))
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise MlmaError(
                f"the model cannot encode audio ({reason}); its config.yaml is damaged or of "
                "another model"
            ) from error

    def _frames_of(self, samples: int) -> int:
        """Encoder frames of so much silence."""
        return len(self.emissions([np.zeros(samples)])[0])

    def language_of(self, token_ids: Sequence[int]) -> str | None:
        """The language that the symbols name first, ISO 639-1; None: they name none."""
        return next((self._languages[i] for i in token_ids if i in self._languages), None)


def check_emissions(log_probs: Tensor) -> Tensor:
    """Refuse NaN and Inf, of which a search would make a text all the same.

    Args:
        log_probs: (..., vocabulary).

    Returns:
        What was given.

    Raises:
        MlmaError: a frame has no finite maximum, or a NaN.
    """
    if not log_probs.amax(-1).isfinite().all():  # NaN is the maximum of its frame
        raise MlmaError(
            "the model's output is NaN or Inf; its checkpoint is damaged or diverged in training: "
            "take another"
        )
    return log_probs
