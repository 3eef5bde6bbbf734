"""Translate a talk of any length while it is spoken: samples in, text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import as_samples
from espnet_mlma.sst.config import TurnDecoding
from espnet_mlma.sst.encoder.base import SpeechStream
from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE
from espnet_mlma.sst.languages import separator
from espnet_mlma.sst.llm.generate import Conversation
from espnet_mlma.sst.model import SpeechTranslator
from espnet_mlma.sst.score.logs import Emission


class Translator:
    """Translate one talk at a time and hold its state.

    Memory and time per turn do not grow with the talk. Several translators, one per listener, can
    share a model.

    Args:
        model: translator in evaluation mode.
        multiplier: chunks of 0.96 s per turn; the paper uses 2 for German and 3 for Chinese.
        decoding: search and memory; None: as in the model's configuration.

    Raises:
        MlmaError: the multiplier is below 1, or the language model does not support a sliding
            cache.

    Source: CMU's IWSLT 2025 Simultaneous Speech Translation System, section 3.4.
    """

    def __init__(
        self,
        model: SpeechTranslator,
        multiplier: int = 2,
        decoding: TurnDecoding | None = None,
    ):
        self.model = model
        self.multiplier = multiplier
        self.conversation = Conversation(
            model.llm, model.dialogue(multiplier), decoding or model.config.decoding
        )
        self._separator = separator(model.config.dialogue.target)
        self.reset()

    def reset(self) -> None:
        """Discard the talk; the next sample starts a new one."""
        self.stream = SpeechStream(self.model.encoder, self.model.adapter, self.multiplier)
        self.conversation.reset()
        self._samples = 0
        self._has_spoken = False

    def push(self, samples: np.ndarray | Tensor) -> str:
        """Translate the next samples.

        Args:
            samples: (time,) at 16 kHz between -1 and 1, any number.

        Returns:
            New text, to append to the earlier text without a separator; often empty.

        Raises:
            MlmaError: the samples are not numbers or have several channels.
            ValueError: the talk is finished.
        """
        return "".join(self.spaced(emission.text) for emission in self.push_turns(samples))

    def finish(self) -> str:
        """End the talk and return the remaining text, as `push` does."""
        return "".join(self.spaced(emission.text) for emission in self.finish_turns())

    def push_turns(self, samples: np.ndarray | Tensor) -> Iterator[Emission]:
        """Translate like `push`, but yield each turn with its times, also if its text is empty."""
        block = self.multiplier * CHUNK_SAMPLES
        # One turn at a time, so that its compute time is its own.
        for piece in torch.from_numpy(as_samples(samples)).split(block):
            self._samples += len(piece)
            ended = self._samples // block * block
            yield from self._turn(
                lambda piece=piece: next(iter(self.stream.push(piece)), None), ended
            )

    def finish_turns(self) -> Iterator[Emission]:
        """End the talk like `finish`, but yield the last turn with its times."""
        return self._turn(self.stream.finish, self._samples)

    def _turn(self, encode: Callable[[], Tensor | None], ended: int) -> Iterator[Emission]:
        """Yield the turn that ended at sample `ended` of the talk, if it is complete."""
        started = time.perf_counter()
        vectors = encode()
        if vectors is not None:
            text = self.conversation.translate(vectors).text
            yield Emission(text, ended / SAMPLE_RATE, time.perf_counter() - started)

    def spaced(self, text: str) -> str:
        """Return a turn's text, with the separator from earlier text in front."""
        if not text:
            return ""
        between = self._separator if self._has_spoken else ""
        self._has_spoken = True
        return between + text
