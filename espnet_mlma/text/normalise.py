"""Turn a transcript as written into the words as spoken.

The rules, in order:

1. Unicode NFC, lower case. Letters keep their accents. An accent without a composed letter (Dutch
   stressed "bíj́n") is dropped, and so are invisible format characters.
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

from espnet_mlma.text.language import alphabet

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻ`´′＇", "'"))
_LIGATURES = str.maketrans(
    {"ĳ": "ij", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
_INVISIBLE = {"Cf", "Mn", "Mc", "Me"}
_SPOKEN_SYMBOLS = frozenset("%‰&@#+=*\\°§€$£¥<>^~")


def normalise(text: str, lang: str) -> str:
    """Reduce a transcript to lower-case words of letters, digits and apostrophes.

    Args:
        text: a transcript in any Unicode form.
        lang: its language; all languages share the rules, so it is only checked.

    Returns:
        Words separated by single spaces; empty if the text has no words. Idempotent.

    Raises:
        MlmaError: the language has no alphabet.
    """
    alphabet(lang)
    text = unicodedata.normalize("NFC", text).lower()
    text = text.translate(_APOSTROPHES).translate(_LIGATURES)
    visible = "".join(char for char in text if unicodedata.category(char) not in _INVISIBLE)
    # Dropping a mark can bring together two characters that compose.
    words = _without_quotation_marks(unicodedata.normalize("NFC", visible))
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in words).split())


def training_problem(text: str, words: str, lang: str) -> str | None:
    """Say why a transcript cannot be trained on.

    Args:
        text: the transcript as the corpus has it: a "%" that `normalise` removes was spoken.
        words: `normalise(text, lang)`.
        lang: its language.

    Returns:
        `empty_text`, `digits`, `out_of_alphabet`, or None if there is no problem.

    Raises:
        MlmaError: the language has no alphabet.
    """
    if not words:
        return "empty_text"
    if any(char.isnumeric() for char in words):
        return "digits"
    if not (set(words) <= alphabet(lang) | {"'", " "}) or not _SPOKEN_SYMBOLS.isdisjoint(text):
        return "out_of_alphabet"
    return None


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
