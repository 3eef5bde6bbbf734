"""The recogniser behind the call signature of ESPnet's `espnet2.bin.asr_inference.Speech2Text`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.legacy.nets.beam_search import Hypothesis
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE, as_samples
from espnet_mlma.decode.best_path import best_path, forced_path
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.prefix_beam import prefix_beam
from espnet_mlma.decode.recogniser import load
from espnet_mlma.decode.speech_guard import SpeechGuard
from espnet_mlma.decode.words import text_of
from espnet_mlma.errors import MlmaError

Speech = np.ndarray | Tensor
Result = tuple[str, list[str], list[int], Hypothesis]

# ESPnet's other arguments. These are for a search, a quantisation or a decoder that is not used
# here, and change nothing whatever their value.
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
# These would change the result: the one value that is taken, and why there is no other.
_WORD_LM = "espnet_mlma.load takes an n-gram model of words, Decoding(lm=...)"
_OTHER_MODEL = "only a CTC head is decoded here; use ESPnet's class"
_LENGTH = "the text is as long as the frames say"
_CONFIGURED = "it is read from the configuration"
_ONLY: dict[str, tuple[Any, str]] = {
    "bpemodel": (None, _CONFIGURED),
    "ctc_weight": (1.0, "the CTC head decides alone"),
    "dtype": ("float32", "espnet_mlma.load has precision"),
    "enh_s2t_task": (False, _OTHER_MODEL),
    "hugging_face_decoder": (False, _OTHER_MODEL),
    "lang_prompt_token": (None, _OTHER_MODEL),
    "lid_prompt": (False, _OTHER_MODEL),
    "lm_file": (None, _WORD_LM),
    "lm_train_config": (None, _WORD_LM),
    "maxlenratio": (0.0, _LENGTH),
    "minlenratio": (0.0, _LENGTH),
    "multi_asr": (False, _OTHER_MODEL),
    "ngram_file": (None, f"ESPnet's counts symbols; {_WORD_LM}"),
    "nlp_prompt_token": (None, _OTHER_MODEL),
    "normalize_length": (False, "texts are compared by their probability"),
    "partial_ar": (False, _OTHER_MODEL),
    "penalty": (0.0, _LENGTH),
    "prompt_token_file": (None, _OTHER_MODEL),
    "quantize_asr_model": (False, "espnet_mlma.load has precision='int8'"),
    "streaming": (False, "espnet_mlma.StreamingTranscriber takes audio as it comes"),
    "token_type": (None, _CONFIGURED),
    "transducer_conf": (None, _OTHER_MODEL),
}


class Speech2Text:
    """What ESPnet's class does with a CTC model, so that a program changes one import.

    A score is the log-probability of the best path, or with a beam of what the search summed;
    ESPnet sums over all alignments. Of intermediate CTC only the final layer is returned.

    Args:
        asr_train_config: what `espnet_mlma.load` takes; None: config.yaml beside the checkpoint.
        asr_model_file: the checkpoint; None: the averaged one.
        device: `cpu`, `cuda`, ...
        beam_size: 1 is the best path, more a prefix beam.
        nbest: most results for an utterance, if there is a beam.
        speech_guard: give one empty result where nothing in an utterance can be speech.
        others: ESPnet's other arguments, where they change nothing.

    Raises:
        MlmaError: an argument asks for what is not done here, or the model cannot be loaded.
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
        self.decoding = Decoding(beam_size=beam_size, speech_guard=speech_guard)
        self.nbest = nbest
        self.device = device
        recogniser = load(asr_train_config, asr_model_file, device)
        self.acoustic = recogniser.acoustic
        self.asr_model = recogniser.model
        self.asr_train_args = Namespace(**recogniser.config)

    @classmethod
    def from_pretrained(cls, model_tag: str | None = None, **kwargs: Any) -> Speech2Text:
        """From a model on the Hugging Face hub, `user/name`; None: from files, as the class."""
        return cls(**kwargs) if model_tag is None else cls(model_tag, **kwargs)

    def __call__(self, speech: Speech | Sequence[Speech]) -> list[Result] | list[list[Result]]:
        """Recognise an utterance, (time,) samples at 16 kHz; or several, as `batch_decode`.

        Returns:
            (text, symbols, their indices, hypothesis) of the best, then the next, ...
        """
        if isinstance(speech, list | tuple):
            return self.batch_decode(speech)
        return self.batch_decode([speech])[0]

    def batch_decode(self, speech: Sequence[Speech]) -> list[list[Result]]:
        """Recognise utterances together; what `__call__` returns, of each.

        Args:
            speech: each (time,) samples at 16 kHz.

        Raises:
            MlmaError: samples are not one channel between -1 and 1.
        """
        utterances = [as_samples(samples) for samples in speech]
        emissions = self.acoustic.emissions(utterances)
        return [self._results(*both) for both in zip(emissions, utterances, strict=True)]

    def _results(self, log_probs: Tensor, samples: np.ndarray) -> list[Result]:
        is_guarded = self.decoding.speech_guard
        if is_guarded and not SpeechGuard.of(samples).has_speech(0, len(samples) / SAMPLE_RATE):
            paths = [forced_path(log_probs, [])]
        elif self.decoding.is_best_path:
            paths = [best_path(log_probs)]
        else:
            paths = prefix_beam(
                log_probs.cpu().numpy(),
                width=self.decoding.beam_size,
                token_threshold=self.decoding.token_threshold,
                score_threshold=self.decoding.score_threshold,
                n_best=self.nbest,
            )
        return [self._result(path.token_ids, path.score) for path in paths]

    def _result(self, token_ids: Sequence[int], score: float) -> Result:
        acoustic, model = self.acoustic, self.asr_model
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
            raise MlmaError(f"{name} is {value!r}; Speech2Text takes {taken!r} alone: {reason}")
