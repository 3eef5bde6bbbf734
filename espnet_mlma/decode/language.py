"""Which language a text is in, by its characters."""

from __future__ import annotations

from functools import cache

LANGUAGES = ("de", "en", "es", "fr", "it", "nl")
# One or two short words are as good as any language's.
_LEAST_CHARACTERS = 6


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier


def guess_language(text: str) -> str | None:
    """The most probable of the recipe's six languages, ISO 639-1; None: too short a text.

    Args:
        text: words.

    Source: Lui and Baldwin, langid.py, ACL 2012; naive Bayes over bytes.
    """
    if len(text) < _LEAST_CHARACTERS:
        return None
    return _identifier().classify(text)[0]
