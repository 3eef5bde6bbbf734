"""The one text normaliser: for training, scoring and comparing."""

from espnet_mlma.text.alphabet import LANGUAGES, alphabet
from espnet_mlma.text.normalise import check, normalise

__all__ = ["LANGUAGES", "alphabet", "check", "normalise"]
