"""The table of languages, and the tokens that name a language in a text.

A language has its native letters and the accented letters that its dictionaries print in loanwords
and its newspapers in foreign names (English "café", German "Garçon", Dutch "señor"). A letter
outside both, such as Polish "ł" in Spanish, marks a clip whose text does not match its sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from espnet_mlma.errors import MlmaError

_BASIC = "abcdefghijklmnopqrstuvwxyz"
_CODE = re.compile("[a-z]{2,3}")
_TOKEN = re.compile("<([a-z]{2})>")
_WITHOUT_SPACES = frozenset({"bo", "dz", "ja", "km", "lo", "my", "th", "yue", "zh"})


@dataclass(frozen=True, slots=True)
class Language:
    """What the package knows about one language.

    Attributes:
        code: ISO 639-1.
        name: in English.
        native: letters of its own words; empty for a language that is only translated into.
        loan: accented letters of loanwords and foreign names.
        voice: eSpeak NG's voice.
        fleurs: its folder in FLEURS.
        has_spaces: words are separated by spaces.
    """

    code: str
    name: str
    native: str = ""
    loan: str = ""
    voice: str = ""
    fleurs: str = ""
    has_spaces: bool = True


# The order seeds the synthetic corpora: append new languages.
LANGUAGE_TABLE = {
    language.code: language
    for language in (
        Language("en", "English", _BASIC, "àâäçèéêëîïñôöü", "en-us", "en_us"),
        Language("it", "Italian", _BASIC + "àèéìíîòóùú", "âäçêëïñôöü", "it", "it_it"),
        Language("fr", "French", _BASIC + "àâæçèéêëîïôœùûüÿ", "áäíñóöú", "fr", "fr_fr"),
        Language("es", "Spanish", _BASIC + "áéíñóúü", "àâäçèêëïôö", "es", "es_419"),
        Language("de", "German", _BASIC + "äöüß", "àáâçèéêëîïñóô", "de", "de_de"),
        Language("nl", "Dutch", _BASIC + "áèéëêíïóöúü", "àâäçîñôû", "nl", "nl_nl"),
        Language("zh", "Chinese", has_spaces=False),
    )
}
LANGUAGES = tuple(code for code, language in LANGUAGE_TABLE.items() if language.native)
NAMES = {code: language.name for code, language in LANGUAGE_TABLE.items()}


@cache
def alphabet(code: str) -> frozenset[str]:
    """Return the letters that a transcript may hold, without apostrophe and space.

    Args:
        code: one of `LANGUAGES`.

    Raises:
        MlmaError: the recogniser does not know the language.
    """
    if code not in LANGUAGES:
        raise MlmaError(f"no alphabet for language '{code}'; choose one of {' '.join(LANGUAGES)}")
    return frozenset(LANGUAGE_TABLE[code].native + LANGUAGE_TABLE[code].loan)


def check_code(code: str) -> None:
    """Check that text in a language can be normalised: known, or brought by one's own corpus.

    Args:
        code: ISO 639-1 or 639-3.

    Raises:
        MlmaError: it is no code, or the language is written without spaces between words.
    """
    if not _CODE.fullmatch(code):
        raise MlmaError(f"'{code}' is no language code; give two or three letters, such as pl")
    if code in _WITHOUT_SPACES:
        raise MlmaError(f"'{code}' is written without spaces between words; it is not supported")


def order_languages(codes: Iterable[str]) -> list[str]:
    """Sort languages: those of the table in its order, then others by code."""
    known = {code: place for place, code in enumerate(LANGUAGES)}
    return sorted(set(codes), key=lambda code: (known.get(code, len(known)), code))


def language_token(code: str) -> str:
    """Return the token of a language: `<it>` for Italian.

    Raises:
        MlmaError: the code has three letters, as `<unk>` and `<asr>`, which name no language.
    """
    if len(code) != 2:
        raise MlmaError(f"'{code}': tokens of languages have two letters; train without them")
    return f"<{code}>"


def language_of_token(token: str) -> str | None:
    """Return the code of the language that a token names; None for any other token."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def with_language(text: str, code: str) -> str:
    """Put the token of a language before a text."""
    return f"{language_token(code)} {text}"


def split_language(text: str) -> tuple[str | None, str]:
    """Split a text into the language that its first token names, if any, and the rest."""
    first, _, rest = text.partition(" ")
    code = language_of_token(first)
    return (None, text) if code is None else (code, rest)
