"""ESPnet models as sources of emissions: samples in, log-probabilities of symbols out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.errors import MlmaError
from espnet_mlma.text.language import language_of_token

# ESPnet's input layers need up to 0.2 s; shorter audio is padded with silence.
_SHORTEST = SAMPLE_RATE * 3 // 10


class AcousticModel:
    """An ESPnet ASR model with a CTC head.

    Args:
        model: in evaluation mode.
        token_list: the symbols, blank first.
        token_type: `char` or `bpe`.
        device: where to run.

    Raises:
        MlmaError: the model has no CTC head, or `token_type` is another one.
    """

    # Long audio is encoded in windows of this length, to find its pauses.
    window_seconds = 12.0
    # Audio up to this length is encoded as a whole, longer audio is cut at pauses into shorter
    # utterances. None: audio is encoded in windows only.
    utterance_seconds: float | None = 12.0

    def __init__(self, model: Any, token_list: Sequence[str], token_type: str, device: str):
        if getattr(model, "ctc", None) is None:
            raise MlmaError("the model has no CTC head; train with ctc_weight above 0")
        if token_type not in ("char", "bpe"):
            raise MlmaError(f"token_type is {token_type!r}; give a model of type char or bpe")
        self.model = model.to(device)
        self.device = device
        self.tokens = tuple(token_list)
        self.token_type = token_type
        languages = {i: language_of_token(token) for i, token in enumerate(self.tokens)}
        self._languages = {i: language for i, language in languages.items() if language}
        # Symbols that are not text.
        self.special_ids = frozenset(self._languages)

    @torch.inference_mode()
    def emissions(self, utterances: Sequence[np.ndarray]) -> list[Tensor]:
        """Encode utterances together.

        Args:
            utterances: each (time,) samples at 16 kHz.

        Returns:
            For each (frames, vocabulary), natural logarithms, on the model's device.
        """
        if not utterances:
            return []
        lengths = torch.tensor([max(len(samples), _SHORTEST) for samples in utterances])
        speech = stack(utterances, int(lengths.max()))
        encoded, frames = self.model.encode(speech.to(self.device), lengths.to(self.device))
        log_probs = self._log_softmax(encoded)
        return [row[:n] for row, n in zip(log_probs, frames.tolist(), strict=True)]

    def _log_softmax(self, encoded: Tensor | tuple[Tensor, object]) -> Tensor:
        """Return log-probabilities (batch, frames, vocabulary) of the encoder's output."""
        if isinstance(encoded, tuple):  # with intermediate CTC: (frames, intermediate frames)
            encoded = encoded[0]
        return check_emissions(self.model.ctc.log_softmax(encoded))

    @cached_property
    def frame_samples(self) -> int:
        """Samples from one encoder frame to the next.

        The number is measured, because each of ESPnet's input layers has its own. 1.92 s are a
        whole number of frames of 10, 20, 30, 40, 60 or 80 ms.
        """
        step = round(1.92 * SAMPLE_RATE)
        try:
            return step // (self._frames_of(2 * step) - self._frames_of(step))
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise MlmaError(
                f"the model cannot encode audio ({reason}); its config.yaml is damaged or of "
                "another model: copy both again"
            ) from error

    def _frames_of(self, samples: int) -> int:
        """Count the encoder frames of silence."""
        return len(self.emissions([np.zeros(samples)])[0])

    def language_of(self, token_ids: Sequence[int]) -> str | None:
        """Return the first language token's language, ISO 639-1; None: there is none."""
        return next((self._languages[i] for i in token_ids if i in self._languages), None)


def stack(utterances: Sequence[np.ndarray], width: int) -> Tensor:
    """Stack samples into one tensor (utterances, width), padded with zeros."""
    speech = torch.zeros(len(utterances), width)
    for row, samples in zip(speech, utterances, strict=True):
        row[: len(samples)] = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
    return speech


def check_emissions(log_probs: Tensor) -> Tensor:
    """Refuse NaN and Inf: a search would return a text all the same.

    Args:
        log_probs: (..., vocabulary).

    Returns:
        The argument.

    Raises:
        MlmaError: a frame has NaN or no finite maximum.
    """
    if not log_probs.amax(-1).isfinite().all():  # NaN is the maximum of its frame
        raise MlmaError(
            "the model's output is NaN or Inf; its checkpoint is damaged or diverged in training: "
            "take another"
        )
    return log_probs
