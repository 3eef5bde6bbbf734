"""A translator as a speech processor of simulstream, whose server gives each listener one.

simulstream (https://github.com/hlt-mt/simulstream) resamples, cuts and logs; its scorers read the
log with `detokenizer_type: simuleval` and `latency_unit: word`, or `char` for Chinese, which the
same configuration may hold. See `TranslatorProcessor` for the rest of it, and

    simulstream_server --server-config server.yaml --speech-processor-config processor.yaml
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Protocol

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
    """A talk that is being translated."""

    def push(self, samples: Tensor) -> str:
        """Take the next samples (time,) at 16 kHz, any number; returns what is said now."""

    def finish(self) -> str:
        """The rest, after the last sample."""

    def reset(self) -> None:
        """Forget the talk."""


class StreamProcessor(processors.SpeechProcessor):
    """Serves one listener after another from one stream.

    A subclass loads the model once for all listeners in `load_model`, and gives each its stream.

    Args:
        config: `source` and `target`, languages; `multiplier`, chunks a turn.
        stream: of this listener.
    """

    def __init__(self, config: SimpleNamespace, stream: Stream):
        super().__init__(config)
        self.stream = stream
        self.unit, _ = unit_and_tokeniser(config.target)

    @property
    def speech_chunk_size(self) -> float:
        """A turn's audio, in seconds: no less is ever of use."""
        return self.config.multiplier * CHUNK_SECONDS

    def process_chunk(self, waveform: np.ndarray) -> processors.IncrementalOutput:
        """Take the next samples (time,), float32 at 16 kHz."""
        return self._said(self.stream.push(torch.from_numpy(waveform)))

    def end_of_stream(self) -> processors.IncrementalOutput:
        """Say the rest."""
        return self._said(self.stream.finish())

    def clear(self) -> None:
        """Be ready for the next listener."""
        self.stream.reset()

    def set_source_language(self, language: str) -> None:
        """Check what a listener asks for.

        Raises:
            MlmaError: it is another language.
        """
        self._check("source", language)

    def set_target_language(self, language: str) -> None:
        """Check what a listener asks for.

        Raises:
            MlmaError: it is another language.
        """
        self._check("target", language)

    def tokens_to_string(self, tokens: list[str]) -> str:
        """Text to be shown; a space follows each word, as that alone survives joining outputs."""
        return "".join(f"{token} " for token in tokens) if self.unit == WORD else "".join(tokens)

    def _said(self, text: str) -> processors.IncrementalOutput:
        tokens = units(text, self.unit)
        return processors.IncrementalOutput(tokens, self.tokens_to_string(tokens), [], "")

    def _check(self, side: str, language: str) -> None:
        has = getattr(self.config, side)
        if language != has:
            raise MlmaError(f"the {side} language here is {has}, not {language}; ask for {has}")


class TranslatorProcessor(StreamProcessor):
    """Serves a translator's listeners, with one model for all of them.

    Args:
        config: `checkpoint`, the folder of stage 1 or 2; `source` and `target`, its languages;
            `multiplier`; if wanted `device`, and fields of `TurnDecoding` in place of the model's.

    Raises:
        MlmaError: the model has other languages, or a decoding option is out of range.
    """

    _models: ClassVar[dict[tuple[str, str], models.SpeechTranslator]] = {}

    @classmethod
    def load_model(cls, config: SimpleNamespace) -> None:
        """Load it, unless another listener's processor has."""
        key = _model_key(config)
        if key not in cls._models:
            cls._models[key] = models.load(Path(key[0]), key[1])

    def __init__(self, config: SimpleNamespace):
        self.load_model(config)
        model = self._models[_model_key(config)]
        languages = model.config.dialogue
        if (config.source, config.target) != (languages.source, languages.target):
            raise MlmaError(
                f"{config.checkpoint}: translates {languages.source}-{languages.target}, and not "
                f"{config.source}-{config.target}"
            )
        names = [field.name for field in fields(TurnDecoding)]
        given = {name: getattr(config, name) for name in names if hasattr(config, name)}
        decoding = configuration.make(
            TurnDecoding, asdict(model.config.decoding) | given, "speech processor"
        )
        super().__init__(config, Translator(model, config.multiplier, decoding))


def _model_key(config: SimpleNamespace) -> tuple[str, str]:
    return str(config.checkpoint), getattr(config, "device", "cpu")
