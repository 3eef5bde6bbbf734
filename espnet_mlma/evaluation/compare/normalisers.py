"""Text normalisers for comparisons: ours and Whisper's."""

from __future__ import annotations

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.utterances import Normaliser
from espnet_mlma.text import normalise

# Descriptions below the title of a comparison.
NAMES = {
    "ours": "espnet_mlma.text: lower case, no punctuation but the apostrophes of words; accents "
    "and digits stay",
    "whisper": "Whisper's. English: numbers become digits, contractions and British spellings are "
    "rewritten, fillers and accents are dropped. Other languages: accents stay, an apostrophe "
    "separates words, text in brackets is dropped. Its WER is not comparable with ours",
}


def find_normaliser(name: str) -> Normaliser:
    """Return a normaliser by its name in `NAMES`.

    Raises:
        MlmaError: the package of Whisper's normaliser is not installed.
    """
    return normalise if name == "ours" else whisper_normaliser()


def whisper_normaliser() -> Normaliser:
    """Return Whisper's normalisers of English and of other languages as one.

    Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, appendix C.

    Raises:
        MlmaError: the package is not installed.
    """
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise MlmaError(
            "Whisper's normaliser is not installed; pip install 'espnet-mlma[compare]', or use "
            "--normaliser ours"
        ) from None
    english, others = EnglishTextNormalizer(), BasicTextNormalizer()

    def by_language(text: str, lang: str) -> str:
        return " ".join((english if lang == "en" else others)(text).split())

    return by_language
