"""Serve a translator with simulstream, whose server makes one speech processor per listener.

simulstream (https://github.com/hlt-mt/simulstream) resamples, cuts and logs the audio. Its scorers
read the log with `detokenizer_type: simuleval` and `latency_unit: word` (`char` for Chinese); both
keys may be in the same configuration. `TranslatorProcessor` documents the other keys. Start it with

    simulstream_server --server-config server.yaml --speech-processor-config processor.yaml
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst import config as configuration
from espnet_mlma.sst import model as models
from espnet_mlma.sst.config import TurnDecoding
from espnet_mlma.sst.extras import require
from espnet_mlma.sst.grid import CHUNK_SECONDS
from espnet_mlma.sst.score.logs import WORD, units
from espnet_mlma.sst.score.quality import unit_and_tokeniser
from espnet_mlma.sst.stream.agent import Translator

processors = require("simulstream.server.speech_processors", "simulstream")


class Stream(Protocol):
    """Translate one talk: the interface that `StreamProcessor` needs."""

    def push(self, samples: Tensor) -> str:
        """Translate the next samples, (time,) at 16 kHz; return the new text."""
        ...

    def finish(self) -> str:
        """End the talk; return the remaining text."""
        ...

    def reset(self) -> None:
        """Discard the talk."""
        ...


class StreamProcessor(processors.SpeechProcessor):
    """Serve one listener after another from one stream.

    A subclass loads the model once in `load_model` and passes each processor its own stream.

    Args:
        config: `source` and `target`, languages; `multiplier`, chunks per turn.
        stream: translation of this listener's talk.
    """

    def __init__(self, config: SimpleNamespace, stream: Stream):
        super().__init__(config)
        self.stream = stream
        self.unit, _ = unit_and_tokeniser(config.target)

    @property
    def speech_chunk_size(self) -> float:
        """Audio per turn in seconds; a smaller block never completes a turn."""
        return self.config.multiplier * CHUNK_SECONDS

    def process_chunk(self, waveform: np.ndarray) -> Any:
        """Translate the next samples, (time,), float32 at 16 kHz."""
        return self._output(self.stream.push(torch.from_numpy(waveform)))

    def end_of_stream(self) -> Any:
        """Return the remaining text of the talk."""
        return self._output(self.stream.finish())

    def clear(self) -> None:
        """Discard the talk before the next listener."""
        self.stream.reset()

    def set_source_language(self, language: str) -> None:
        """Check the language that a listener asks for.

        Raises:
            MlmaError: the model has another language.
        """
        self._check("source", language)

    def set_target_language(self, language: str) -> None:
        """Check the language that a listener asks for.

        Raises:
            MlmaError: the model has another language.
        """
        self._check("target", language)

    def tokens_to_string(self, tokens: list[str]) -> str:
        """Return text to display; a space after each word survives when outputs are joined."""
        return "".join(f"{token} " for token in tokens) if self.unit == WORD else "".join(tokens)

    def _output(self, text: str) -> Any:
        tokens = units(text, self.unit)
        return processors.IncrementalOutput(tokens, self.tokens_to_string(tokens), [], "")

    def _check(self, side: str, language: str) -> None:
        has = getattr(self.config, side)
        if language != has:
            raise MlmaError(f"the {side} language is {has}, not {language}; ask for {has}")


class TranslatorProcessor(StreamProcessor):
    """Serve a translator to several listeners with one shared model.

    Args:
        config: `checkpoint`, folder of stage 1 or 2; `source` and `target`, its languages;
            `multiplier`; optionally `device`, and fields of `TurnDecoding` to override.

    Raises:
        MlmaError: the model has other languages, or a decoding option is out of range.
    """

    _models: ClassVar[dict[tuple[str, str], models.SpeechTranslator]] = {}

    @classmethod
    def load_model(cls, config: SimpleNamespace) -> None:
        """Load the model unless it is loaded already."""
        key = _model_key(config)
        if key not in cls._models:
            cls._models[key] = models.load(Path(key[0]), key[1])

    def __init__(self, config: SimpleNamespace):
        self.load_model(config)
        model = self._models[_model_key(config)]
        languages = model.config.dialogue
        if (config.source, config.target) != (languages.source, languages.target):
            raise MlmaError(
                f"{config.checkpoint}: translates {languages.source}-{languages.target}, not "
                f"{config.source}-{config.target}; correct source and target"
            )
        names = [field.name for field in fields(TurnDecoding)]
        given = {name: getattr(config, name) for name in names if hasattr(config, name)}
        decoding = configuration.make(
            TurnDecoding, asdict(model.config.decoding) | given, "speech processor"
        )
        super().__init__(config, Translator(model, config.multiplier, decoding))


def _model_key(config: SimpleNamespace) -> tuple[str, str]:
    return str(config.checkpoint), getattr(config, "device", "cpu")
