"""Turn a transcript as written into the words as spoken.

The rules, in order:

1. Unicode NFC, lower case. Letters keep their accents. An accent without a composed letter (Dutch
   stressed "bíj́n") is dropped, and so are invisible format characters. Languages beyond the
   table keep marks that follow a letter: they are vowels in Devanagari or Arabic. In Turkish and
   Azerbaijani, I and İ become ı and i.
2. Typographic ligatures (ﬁ, ﬂ, Dutch ĳ) become their letters. ß, œ and æ are letters and stay.
3. Every apostrophe-like mark becomes "'". Doubled marks and marks that touch no letter or digit are
   punctuation. An opening mark and a later closing mark around words are quotation marks. Other
   apostrophes stay ("l'eau", "'s avonds", "un po'", "goin'"). Elisions are not split.
4. Hyphens, dashes and slashes become spaces: "peut-être" and "e/o" are two words each, in reference
   and hypothesis alike.
5. All other punctuation and symbols become spaces, and runs of spaces become one.

Digits stay: nothing here says how they were spoken. `training_problem` rejects them.
"""

from __future__ import annotations

import re
import unicodedata

from espnet_mlma.text.language import LANGUAGES, alphabet, check_code

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻ`´′＇", "'"))
_LIGATURES = str.maketrans(
    {"ĳ": "ij", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
_DOTTED = str.maketrans("Iİ", "ıi")
_INVISIBLE = {"Cf", "Mn", "Mc", "Me"}
_SPOKEN_SYMBOLS = frozenset("%‰&@#+=*\\°§€$£¥<>^~")


def normalise(text: str, lang: str) -> str:
    """Reduce a transcript to lower-case words of letters, digits and apostrophes.

    Args:
        text: a transcript in any Unicode form.
        lang: its language, also one beyond the table.

    Returns:
        Words separated by single spaces; empty if the text has no words. Idempotent.

    Raises:
        MlmaError: it is no language code, or the language is written without spaces.
    """
    check_code(lang)
    text = unicodedata.normalize("NFC", text)
    text = (text.translate(_DOTTED) if lang in ("az", "tr") else text).lower()
    text = text.translate(_APOSTROPHES).translate(_LIGATURES)
    hidden = _INVISIBLE if lang in LANGUAGES else {"Cf"}
    visible = "".join(char for char in text if unicodedata.category(char) not in hidden)
    # Dropping a mark can bring together two characters that compose.
    words = _without_quotation_marks(unicodedata.normalize("NFC", visible))
    spoken = "".join(c if c.isalnum() or c == "'" or _is_mark(c) else " " for c in words)
    return " ".join(filter(None, (_without_leading_marks(word) for word in spoken.split())))


def training_problem(text: str, words: str, lang: str) -> str | None:
    """Say why a transcript cannot be trained on.

    Args:
        text: the transcript as the corpus has it: a "%" that `normalise` removes was spoken.
        words: `normalise(text, lang)`.
        lang: its language; the alphabet of one beyond the table is its corpus's, whose reader
            checks it.

    Returns:
        `empty_text`, `digits`, `out_of_alphabet`, or None if there is no problem.

    Raises:
        MlmaError: it is no language code, or the language is written without spaces.
    """
    check_code(lang)
    if not words:
        return "empty_text"
    if any(char.isnumeric() for char in words):
        return "digits"
    is_foreign = lang in LANGUAGES and not set(words) <= alphabet(lang) | {"'", " "}
    if is_foreign or not _SPOKEN_SYMBOLS.isdisjoint(text):
        return "out_of_alphabet"
    return None


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Mc", "Me")


def _without_leading_marks(word: str) -> str:
    while word and _is_mark(word[0]):
        word = word[1:]
    return word


def _without_quotation_marks(text: str) -> str:
    """Replace apostrophes that are punctuation with spaces: stray, doubled, or around words."""
    text = re.sub("'{2,}", " ", text)
    stray_or_paired = set()
    opened = []
    for match in re.finditer("'", text):
        place = match.start()
        before, after = text[max(place - 1, 0) : place], text[place + 1 : place + 2]
        if not before.isalnum() and not after.isalnum():
            stray_or_paired.add(place)
        if before.isalnum() and after.isalnum():
            continue
        if after.isalnum():
            opened.append(place)
        elif opened and not before.isspace():
            stray_or_paired.update((opened.pop(), place))
    return "".join(" " if place in stray_or_paired else c for place, c in enumerate(text))
