"""Normalise text alike for training, scoring and comparing, and list the languages."""

from espnet_mlma.text.language import LANGUAGES, alphabet, check_code, order_languages
from espnet_mlma.text.normalise import normalise, training_problem

__all__ = [
    "LANGUAGES",
    "alphabet",
    "check_code",
    "normalise",
    "order_languages",
    "training_problem",
]
