"""A talk of any length, translated as it is heard: samples in, text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import as_samples
from espnet_mlma.sst.config import TurnDecoding
from espnet_mlma.sst.encoder.base import EncoderStream
from espnet_mlma.sst.grid import CHUNK_SAMPLES, SAMPLE_RATE
from espnet_mlma.sst.languages import separator
from espnet_mlma.sst.llm.generate import Conversation
from espnet_mlma.sst.model import SpeechTranslator
from espnet_mlma.sst.score.logs import Emission


class Translator:
    """Translates one talk at a time; all that it knows of a talk is in here.

    Memory and the time of a turn do not grow with the talk. Several translators may share a model,
    each for a listener of its own.

    Args:
        model: in evaluation mode.
        multiplier: chunks of 0.96 s that a turn waits for; 2 is the paper's for German, 3 for
            Chinese.
        decoding: how text is searched for, and what is remembered; None: as the model's
            configuration says.

    Raises:
        MlmaError: the multiplier is below 1, or the language model cannot forget.

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
        """Forget the talk; the next sample is the first of another."""
        self.stream = EncoderStream(self.model.encoder, self.model.adapter, self.multiplier)
        self.conversation.reset()
        self._heard = 0
        self._has_spoken = False

    def push(self, samples: np.ndarray | Tensor) -> str:
        """Hear the next samples.

        Args:
            samples: (time,) at 16 kHz between -1 and 1, any number.

        Returns:
            What is said now, to be joined to what was said before as it is; often empty.

        Raises:
            MlmaError: these are no samples, or not of one channel.
            ValueError: the talk is finished.
        """
        return "".join(self.spaced(emission.text) for emission in self.hear(samples))

    def finish(self) -> str:
        """The audio is over: what is still to be said, as of `push`."""
        return "".join(self.spaced(emission.text) for emission in self.hear_end())

    def hear(self, samples: np.ndarray | Tensor) -> Iterator[Emission]:
        """As `push`, with the times of each turn; turns that say nothing are among them."""
        block = self.multiplier * CHUNK_SAMPLES
        # No more than a block at a time, so that each turn has the computing time of its own.
        for piece in torch.from_numpy(as_samples(samples)).split(block):
            self._heard += len(piece)
            ended = self._heard // block * block
            yield from self._turn(
                lambda piece=piece: next(iter(self.stream.push(piece)), None), ended
            )

    def hear_end(self) -> Iterator[Emission]:
        """As `finish`, with the times of the last turn."""
        return self._turn(self.stream.finish, self._heard)

    def _turn(self, encode: Callable[[], Tensor | None], ended: int) -> Iterator[Emission]:
        """The turn of a block, if there is one now, that ended at a sample of the talk."""
        started = time.perf_counter()
        vectors = encode()
        if vectors is not None:
            text = self.conversation.turn(vectors).text
            yield Emission(text, ended / SAMPLE_RATE, time.perf_counter() - started)

    def spaced(self, text: str) -> str:
        """What a turn said, with what parts it from what was said before."""
        if not text:
            return ""
        between = self._separator if self._has_spoken else ""
        self._has_spoken = True
        return between + text
