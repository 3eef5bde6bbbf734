"""The letters of each language.

A language has its native letters and the accented letters that its dictionaries print in loanwords
and its newspapers in neighbours' names (English "café", German "Garçon", Dutch "señor"). A letter
outside both, such as Polish "ł" in Spanish, marks a clip whose text says little about its sound.
"""

from __future__ import annotations

from espnet_mlma.errors import MlmaError

_BASIC = "abcdefghijklmnopqrstuvwxyz"

NATIVE = {
    "en": _BASIC,
    "it": _BASIC + "àèéìíîòóùú",
    "fr": _BASIC + "àâæçèéêëîïôœùûüÿ",
    "es": _BASIC + "áéíñóúü",
    "de": _BASIC + "äöüß",
    "nl": _BASIC + "áèéëêíïóöúü",
}

LOAN = {
    "en": "àâäçèéêëîïñôöü",
    "it": "âäçêëïñôöü",
    "fr": "áäíñóöú",
    "es": "àâäçèêëïôö",
    "de": "àáâçèéêëîïñóô",
    "nl": "àâäçîñôû",
}

LANGUAGES = tuple(NATIVE)


def alphabet(lang: str) -> frozenset[str]:
    """The letters that a transcript of the language may hold, apostrophe and space apart.

    Raises:
        MlmaError: the language is not one of `LANGUAGES`.
    """
    if lang not in NATIVE:
        raise MlmaError(f"no alphabet for language '{lang}'; there is one for {' '.join(NATIVE)}")
    return frozenset(NATIVE[lang] + LOAN[lang])
