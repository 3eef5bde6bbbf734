"""The texts of reference and hypothesis made comparable: our way, or Whisper's."""

from __future__ import annotations

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.join import Normaliser
from espnet_mlma.text import normalise

# What a reader has to know of each.
NAMES = {
    "ours": "espnet_mlma.text: lower case, no punctuation but the apostrophes of words; accents "
    "and digits stay",
    "whisper": "Whisper's. English: digits for numbers, contractions and British spellings "
    "rewritten, fillers and accents dropped. Other languages: accents stay, an apostrophe parts "
    "words, what stands in brackets is dropped. So a WER by it is not one by ours",
}


def find(name: str) -> Normaliser:
    """A normaliser by its name in `NAMES`.

    Raises:
        MlmaError: Whisper's is asked for, and its package is not installed.
    """
    return normalise if name == "ours" else whisper()


def whisper() -> Normaliser:
    """Whisper's two normalisers, as the package whisper-normalizer has them.

    Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, appendix C.

    Raises:
        MlmaError: the package is not installed.
    """
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise MlmaError(
            "Whisper's normaliser is not installed; pip install 'espnet-mlma[compare]', or take "
            "--normaliser ours"
        ) from None
    english, others = EnglishTextNormalizer(), BasicTextNormalizer()

    def by_language(text: str, lang: str) -> str:
        return " ".join((english if lang == "en" else others)(text).split())

    return by_language
