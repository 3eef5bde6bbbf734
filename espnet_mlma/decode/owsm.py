"""S2T-CTC models such as OWSM-CTC: emissions for a language and a task, from windows of 30 s."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.acoustic import AcousticModel, stack
from espnet_mlma.decode.best_path import BLANK
from espnet_mlma.decode.words import CHAR_SPACE
from espnet_mlma.errors import MlmaError
from espnet_mlma.loading.configuration import task_of

# ISO 639-3, which the symbols use, and ISO 639-1. A language without a code of two letters keeps
# its code of three.
_CODES = """
afr:af amh:am ara:ar asm:as aze:az bel:be ben:bn bos:bs bre:br bul:bg cat:ca ces:cs cmn:zh
cym:cy dan:da deu:de ell:el eng:en epo:eo est:et eus:eu fas:fa fin:fi fra:fr fry:fy gle:ga
glg:gl grn:gn guj:gu hau:ha heb:he hin:hi hrv:hr hun:hu hye:hy ibo:ig ina:ia ind:id isl:is
ita:it jav:jv jpn:ja kan:kn kat:ka kaz:kk khm:km kin:rw kir:ky kor:ko lao:lo lav:lv lin:ln
lit:lt ltz:lb lug:lg mal:ml mar:mr mkd:mk mlt:mt mon:mn mri:mi msa:ms mya:my nep:ne nld:nl
nor:no nya:ny oci:oc ori:or orm:om pan:pa pol:pl por:pt pus:ps ron:ro rus:ru slk:sk slv:sl
sna:sn snd:sd som:so spa:es srp:sr swa:sw swe:sv tam:ta tat:tt tel:te tgk:tg tha:th tur:tr
uig:ug ukr:uk urd:ur uzb:uz vie:vi wol:wo xho:xh yor:yo zho:zh zul:zu
"""
_TWO_LETTERS = {three: two for three, two in (pair.split(":") for pair in _CODES.split())}
_THREE_LETTERS = {two: three for three, two in _TWO_LETTERS.items()}
# Symbols that look like language codes.
_NOT_LANGUAGES = frozenset({"<asr>", "<eos>", "<sop>", "<sos>", "<unk>"})
_LANGUAGE = re.compile(r"<[a-z]{3}>")
_TASK = re.compile(r"<(asr|pr|st_\w+)>")


class SpeechToTextModel(AcousticModel):
    """An ESPnet S2T-CTC model. Every utterance is padded with silence to the trained length.

    Without the padding OWSM-CTC makes three times the errors (ESPnet's page of OWSM v4).

    Args:
        model: in evaluation mode.
        config: its training configuration.
        device: where to run.
        language: ISO 639-1 or 639-3 code of the spoken language; None: the model finds it.
        task: `asr`, or `st_` and a code of three letters to translate.

    Raises:
        MlmaError: the model does not have the language or the task.

    Source: Peng et al., OWSM-CTC, ACL 2024.
    """

    utterance_seconds = None  # a short utterance costs as much as a window

    def __init__(
        self,
        model: Any,
        config: dict[str, Any],
        device: str,
        language: str | None = None,
        task: str = "asr",
    ):
        super().__init__(model, config["token_list"], config["token_type"], device)
        trained = config.get("preprocessor_conf") or {}
        self.window_seconds = float(trained.get("speech_length", 30))
        self.special_ids = frozenset(
            i
            for i, token in enumerate(self.tokens)
            if i != BLANK and token != CHAR_SPACE and token[0] == "<" and token[-1] == ">"
        )
        if language is None:
            spoken = trained.get("nolang_symbol", "<nolang>")
        else:
            spoken = f"<{_THREE_LETTERS.get(language, language)}>"
        self._prefix = [self._id(spoken, "language"), self._id(f"<{task}>", "task")]
        written = f"<{task.removeprefix('st_')}>" if task.startswith("st_") else spoken
        self._written = _code(written)

    def _id(self, symbol: str, kind: str) -> int:
        if symbol not in self.tokens:
            raise MlmaError(f"the model has no {kind} {symbol}; give one of {self._symbols(kind)}")
        return self.tokens.index(symbol)

    def _symbols(self, kind: str) -> str:
        is_kind = _code if kind == "language" else _TASK.fullmatch
        return " ".join(token for token in self.tokens if is_kind(token))

    @torch.inference_mode()
    def emissions(self, utterances: Sequence[np.ndarray]) -> list[Tensor]:
        """Encode utterances together, each padded to `window_seconds`.

        Args:
            utterances: each (time,) samples at 16 kHz, at most `window_seconds`.

        Returns:
            For each (frames, vocabulary), natural logarithms, on the model's device; frames of
            padding are cut off.

        Raises:
            MlmaError: an utterance is too long.
        """
        if not utterances:
            return []
        window = round(self.window_seconds * SAMPLE_RATE)
        longest = max(map(len, utterances))
        if longest > window:
            raise MlmaError(
                f"an utterance of {longest / SAMPLE_RATE:.1f} s is longer than the "
                f"{self.window_seconds:g} s of this model; call transcribe, which cuts"
            )
        frames = [-(-len(samples) // self.frame_samples) for samples in utterances]
        rows = self._log_probs(stack(utterances, window))
        return [self._of_audio(row)[:n] for row, n in zip(rows, frames, strict=True)]

    def _of_audio(self, log_probs: Tensor) -> Tensor:
        """Drop the frames of language and task, which have no time.

        A model that finds the language may write it there. It is then moved to the first frame of
        audio, if that frame is blank.
        """
        before, audio = log_probs.tensor_split([len(self._prefix)])
        if int(audio[0].argmax()) == BLANK:
            for row in before:
                if _code(self.tokens[int(row.argmax())]) is not None:
                    return torch.cat([row[None], audio[1:]])
        return audio

    def _log_probs(self, speech: Tensor) -> Tensor:
        """Encode to (batch, 2 + frames, vocabulary); the first two are language and task."""
        batch, samples = speech.shape
        previous = [self._id("<na>", "symbol")]
        inputs = {}
        for name, ids in (("text_prev", previous), ("prefix", self._prefix)):
            inputs[name] = torch.tensor([ids] * batch, device=self.device)
            inputs[f"{name}_lengths"] = torch.full((batch,), len(ids), device=self.device)
        lengths = torch.full((batch,), samples, device=self.device)
        encoded, _ = self.model.encode(speech.to(self.device), lengths, **inputs)
        return self._log_softmax(encoded)

    @torch.inference_mode()
    def _frames_of(self, samples: int) -> int:
        return self._log_probs(torch.zeros(1, samples)).shape[1]

    def language_of(self, token_ids: Sequence[int]) -> str | None:
        """Return the text's language: the requested one, else the first among the symbols.

        Args:
            token_ids: the symbols that the model wrote.

        Returns:
            ISO 639-1, or 639-3 if there is none; None: no language is known.
        """
        named = (_code(self.tokens[i]) for i in token_ids)
        return self._written or next((code for code in named if code is not None), None)


def acoustic_model(
    model: Any,
    config: dict[str, Any],
    device: str,
    language: str | None = None,
    task: str = "asr",
) -> AcousticModel:
    """Wrap a loaded model of ESPnet's asr or s2t_ctc task.

    Args:
        model, config: from `checkpoint.build`.
        device: where to run.
        language, task: as for `SpeechToTextModel`; a model of the asr task ignores the language.

    Raises:
        MlmaError: the model does not have the language or the task.
    """
    if task_of(config) == "s2t_ctc":
        return SpeechToTextModel(model, config, device, language, task)
    if task != "asr":
        raise MlmaError(
            f"task {task} is for S2T-CTC models such as OWSM-CTC; leave it out with a model of "
            "ESPnet's asr task"
        )
    return AcousticModel(model, config["token_list"], config["token_type"], device)


def _code(token: str) -> str | None:
    """Return the language that a symbol stands for; None: it is no language."""
    if not _LANGUAGE.fullmatch(token) or token in _NOT_LANGUAGES:
        return None
    return _TWO_LETTERS.get(token[1:-1], token[1:-1])
