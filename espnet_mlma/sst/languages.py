"""Name the translator's languages and split their text into words."""

from __future__ import annotations

import re
import unicodedata
from importlib.util import find_spec

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.extras import require
from espnet_mlma.text.language import LANGUAGE_TABLE, NAMES

# In Chinese text a run of other letters and digits, such as a name, stays one word.
_CHARACTERS = re.compile(r"\s+|[^\W\u2e80-\U0010ffff]+(?:[.'’-][^\W\u2e80-\U0010ffff]+)*|.")
_OPENING, _CLOSING = {"Ps", "Pi"}, {"Pe", "Pf", "Po", "Pd"}


def name_of(language: str) -> str:
    """Return the English name of a language (ISO 639-1).

    Raises:
        MlmaError: the language is unknown.
    """
    if language not in NAMES:
        raise MlmaError(f"no language '{language}'; there are {' '.join(NAMES)}")
    return NAMES[language]


def _has_spaces(language: str) -> bool:
    return language not in LANGUAGE_TABLE or LANGUAGE_TABLE[language].has_spaces


def separator(language: str) -> str:
    """Return the text between two sentences: a space, or nothing in Chinese."""
    return " " if _has_spaces(language) else ""


def pieces(text: str, language: str) -> tuple[str, ...]:
    """Split a text into words, each with its leading space and adjacent punctuation.

    The joined pieces equal the text with single spaces. Chinese is segmented by rjieba if it is
    installed, otherwise into characters.

    Args:
        text: a translation.
        language: language of the text, ISO 639-1.
    """
    text = " ".join(text.split())
    if _has_spaces(language):
        tokens = re.findall(r"\s*\S+", text)
    elif find_spec("rjieba"):
        tokens = require("rjieba").cut(text)
    else:
        tokens = _CHARACTERS.findall(text)
    return tuple(_with_punctuation(tokens))


def _with_punctuation(tokens: list[str]) -> list[str]:
    """Join closing marks to the token before, spaces and opening marks to the token after.

    A mark on its own cannot be aligned to a source word and would be emitted late.
    """
    found: list[str] = []
    before = ""
    for token in tokens:
        kinds = {unicodedata.category(character) for character in token.strip()}
        if kinds <= _OPENING:  # also spaces alone
            before += token
        elif kinds <= _CLOSING and found and not before.strip():
            found[-1] += before + token
            before = ""
        else:
            found.append(before + token)
            before = ""
    if before and found:
        found[-1] += before
    elif before:
        found.append(before)
    return found
