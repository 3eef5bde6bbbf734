"""What languages are called, and their tokens: `<it>` first in a text says that it is Italian."""

from __future__ import annotations

import re

NAMES = {
    "en": "English",
    "it": "Italian",
    "fr": "French",
    "es": "Spanish",
    "de": "German",
    "nl": "Dutch",
}
_TOKEN = re.compile(r"<([a-z]{2})>")


def language_token(language: str) -> str:
    """The symbol of a language, ISO 639-1."""
    return f"<{language}>"


def language_of_token(token: str) -> str | None:
    """The language, ISO 639-1, that a symbol stands for; None: it is no language token."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def with_language(text: str, language: str) -> str:
    """A text that begins with its language's token."""
    return f"{language_token(language)} {text}"


def split_language(text: str) -> tuple[str | None, str]:
    """A text's language, if it begins with a token of one, and the text without the token."""
    first, _, rest = text.partition(" ")
    language = language_of_token(first)
    return (None, text) if language is None else (language, rest)
