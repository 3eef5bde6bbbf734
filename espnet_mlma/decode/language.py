"""Guess the language of a text from its characters."""

from __future__ import annotations

from functools import cache

from espnet_mlma.text import LANGUAGES

# One or two short words occur in any language.
_LEAST_CHARACTERS = 6


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier


def guess_language(text: str) -> str | None:
    """Return the most probable of the recipe's languages, ISO 639-1; None: the text is too short.

    Source: Lui and Baldwin, langid.py, ACL 2012; naive Bayes over bytes.
    """
    if len(text) < _LEAST_CHARACTERS:
        return None
    return _identifier().classify(text)[0]
