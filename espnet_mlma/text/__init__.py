"""Normalise text alike for training, scoring and comparing, and list the languages."""

from espnet_mlma.text.language import LANGUAGES, alphabet
from espnet_mlma.text.normalise import normalise, training_problem

__all__ = ["LANGUAGES", "alphabet", "normalise", "training_problem"]
