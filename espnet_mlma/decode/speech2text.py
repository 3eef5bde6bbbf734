"""A drop-in for ESPnet's `espnet2.bin.asr_inference.Speech2Text`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from espnet2.legacy.nets.beam_search import Hypothesis
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE, as_samples
from espnet_mlma.decode.best_path import forced_path
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.recogniser import load
from espnet_mlma.decode.speech_guard import SpeechGuard
from espnet_mlma.decode.words import text_of
from espnet_mlma.errors import MlmaError

Speech = np.ndarray | Tensor
Result = tuple[str, list[str], list[int], Hypothesis]

# Arguments of ESPnet's class without effect here: they configure a search, a quantisation or a
# decoder that is not used.
_WITHOUT_EFFECT = frozenset(
    {
        "batch_size",
        "ctc_window_margin",
        "hugging_face_decoder_conf",
        "lm_weight",
        "max_mask_parallel",
        "max_seq_len",
        "ngram_scorer",
        "ngram_weight",
        "quantize_dtype",
        "quantize_lm",
        "quantize_modules",
        "threshold_probability",
        "time_sync",
    }
)
# Arguments that would change the result: the only value accepted, and the reason or remedy.
_WORD_LM = "espnet_mlma.load takes an n-gram model of words, Decoding(lm=...)"
_OTHER_MODEL = "only a CTC head is decoded here; use ESPnet's class"
_LENGTH = "CTC's frames decide the length"
_CONFIGURED = "it is read from the configuration"
_ONLY: dict[str, tuple[Any, str]] = {
    "bpemodel": (None, _CONFIGURED),
    "ctc_weight": (1.0, "only the CTC head is used"),
    "dtype": ("float32", "use precision of espnet_mlma.load"),
    "enh_s2t_task": (False, _OTHER_MODEL),
    "hugging_face_decoder": (False, _OTHER_MODEL),
    "lang_prompt_token": (None, _OTHER_MODEL),
    "lid_prompt": (False, _OTHER_MODEL),
    "lm_file": (None, _WORD_LM),
    "lm_train_config": (None, _WORD_LM),
    "maxlenratio": (0.0, _LENGTH),
    "minlenratio": (0.0, _LENGTH),
    "multi_asr": (False, _OTHER_MODEL),
    "ngram_file": (None, f"ESPnet's is of symbols; {_WORD_LM}"),
    "nlp_prompt_token": (None, _OTHER_MODEL),
    "normalize_length": (False, "texts are ranked by their probability"),
    "partial_ar": (False, _OTHER_MODEL),
    "penalty": (0.0, _LENGTH),
    "prompt_token_file": (None, _OTHER_MODEL),
    "quantize_asr_model": (False, "use precision='int8' of espnet_mlma.load"),
    "streaming": (False, "use espnet_mlma.StreamingTranscriber"),
    "token_type": (None, _CONFIGURED),
    "transducer_conf": (None, _OTHER_MODEL),
}


class Speech2Text:
    """Recognise with ESPnet's interface, so that a program changes one import only.

    A score is the log-probability of the best path or, with a beam, of the alignments that the
    search summed; ESPnet sums over all alignments. Of intermediate CTC only the final layer is
    returned.

    Args:
        asr_train_config: as `path` of `espnet_mlma.load`; None: config.yaml beside the checkpoint.
        asr_model_file: the checkpoint; None: the averaged one.
        device: `cpu`, `cuda`, ...
        beam_size: 1 for the best path, more for a prefix beam.
        nbest: most results per utterance, with a beam.
        speech_guard: return one empty result for an utterance that cannot be speech.
        others: ESPnet's other arguments, with values that change nothing.

    Raises:
        MlmaError: an argument has an unsupported value, or the model cannot be loaded.
        TypeError: ESPnet's class does not have an argument.
    """

    def __init__(
        self,
        asr_train_config: str | Path | None = None,
        asr_model_file: str | Path | None = None,
        device: str = "cpu",
        beam_size: int = 1,
        nbest: int = 1,
        speech_guard: bool = True,
        **others: Any,
    ):
        _check(others)
        if asr_train_config is None:
            if asr_model_file is None:
                raise MlmaError("neither asr_train_config nor asr_model_file; give one of them")
            asr_train_config = Path(asr_model_file).parent / "config.yaml"
        self.nbest = nbest
        self.device = device
        decoding = Decoding(beam_size=beam_size, speech_guard=speech_guard)
        self._recogniser = load(asr_train_config, asr_model_file, device, decoding=decoding)
        self.asr_model = self._recogniser.model
        self.asr_train_args = Namespace(**self._recogniser.config)

    @classmethod
    def from_pretrained(cls, model_tag: str | None = None, **kwargs: Any) -> Speech2Text:
        """Load a model of the Hugging Face hub, `user/name`; None: files, as the class itself."""
        return cls(**kwargs) if model_tag is None else cls(model_tag, **kwargs)

    def __call__(self, speech: Speech | Sequence[Speech]) -> list[Result] | list[list[Result]]:
        """Recognise an utterance, (time,) samples at 16 kHz; or a list of them, as `batch_decode`.

        Returns:
            (text, symbols, their indices, hypothesis) for each result, best first.
        """
        if isinstance(speech, list | tuple):
            return self.batch_decode(speech)
        return self.batch_decode([cast(Speech, speech)])[0]

    def batch_decode(self, speech: Sequence[Speech]) -> list[list[Result]]:
        """Recognise utterances together; return for each what `__call__` returns.

        Args:
            speech: each (time,) samples at 16 kHz.

        Raises:
            MlmaError: samples are not one channel between -1 and 1.
        """
        utterances = [as_samples(samples) for samples in speech]
        emissions = self._recogniser.acoustic.emissions(utterances)
        return [self._results(*both) for both in zip(emissions, utterances, strict=True)]

    def _results(self, log_probs: Tensor, samples: np.ndarray) -> list[Result]:
        is_guarded = self._recogniser.decoding.speech_guard
        if is_guarded and not SpeechGuard.of(samples).has_speech(0, len(samples) / SAMPLE_RATE):
            paths = [forced_path(log_probs, [])]
        else:
            paths = self._recogniser.search(log_probs, self.nbest)
        return [self._result(path.token_ids, path.score) for path in paths]

    def _result(self, token_ids: Sequence[int], score: float) -> Result:
        acoustic, model = self._recogniser.acoustic, self.asr_model
        spoken = [acoustic.tokens[i] for i in token_ids if i not in acoustic.special_ids]
        total = torch.tensor(score)
        hypothesis = Hypothesis(
            yseq=torch.tensor([model.sos, *token_ids, model.eos]),
            score=total,
            scores={"ctc": total},
        )
        symbols = [acoustic.tokens[i] for i in token_ids]
        return text_of(spoken, acoustic.token_type), symbols, list(token_ids), hypothesis


def _check(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if name in _WITHOUT_EFFECT:
            continue
        if name not in _ONLY:
            raise TypeError(f"Speech2Text got an unexpected keyword argument {name!r}")
        taken, reason = _ONLY[name]
        if value != taken:
            raise MlmaError(f"{name} is {value!r}; Speech2Text takes only {taken!r}: {reason}")
