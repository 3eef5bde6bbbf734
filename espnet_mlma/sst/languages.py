"""What a language of the translator is called, and how its text is cut into words."""

from __future__ import annotations

import re
import unicodedata
from importlib.util import find_spec

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.extras import require
from espnet_mlma.text.language import LANGUAGE_TABLE, NAMES

# A run of letters and digits that are not Chinese, such as a name, stays one word among characters.
_CHARACTERS = re.compile(r"\s+|[^\W\u2e80-\U0010ffff]+(?:[.'’-][^\W\u2e80-\U0010ffff]+)*|.")
_OPENING, _CLOSING = {"Ps", "Pi"}, {"Pe", "Pf", "Po", "Pd"}


def name_of(language: str) -> str:
    """The English name of a language, ISO 639-1.

    Raises:
        MlmaError: it is none of those that are known here.
    """
    if language not in NAMES:
        raise MlmaError(f"no language '{language}'; there are {' '.join(NAMES)}")
    return NAMES[language]


def _has_spaces(language: str) -> bool:
    return language not in LANGUAGE_TABLE or LANGUAGE_TABLE[language].has_spaces


def separator(language: str) -> str:
    """What stands between two sentences."""
    return " " if _has_spaces(language) else ""


def pieces(text: str, language: str) -> tuple[str, ...]:
    """Words of a text, each with the space before it and the punctuation that touches it.

    Joined they are the text with runs of spaces made one. Chinese is cut by rjieba where that is
    installed, else into characters.

    Args:
        text: a translation.
        language: of the text, ISO 639-1.
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
    """Tokens with closing marks joined to what is before them, spaces and opening ones to the next.

    A mark alone has nothing to be aligned to, and would be said late.
    """
    found: list[str] = []
    before = ""
    for token in tokens:
        kinds = {unicodedata.category(character) for character in token.strip()}
        if kinds <= _OPENING:  # spaces alone too
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
