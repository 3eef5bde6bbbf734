"""Spell a known text with a model's symbols, for alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from espnet_mlma.decode.words import CHAR_SPACE
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import normalise

# The normaliser's rules are the same for all languages.
_ANY_LANGUAGE = "en"


def known_words(
    text: str,
    tokens: Sequence[str],
    token_type: str,
    pieces: Callable[[str], list[str]] | None = None,
) -> list[tuple[str, list[int]]]:
    """Split a text into words, each with its symbols.

    A word is spelled as it stands if the model has the symbols, else normalised, else in capitals.
    Words that the normaliser empties, such as a dash between spaces, are left out.

    Args:
        text: as people write it.
        tokens: the token list.
        token_type: `char` or `bpe`.
        pieces: splits text into symbols, for `bpe`.

    Raises:
        MlmaError: the text has no words, a word has a character that no symbol writes, or
            `pieces` is missing.
    """
    if token_type == "char":
        spell = _characters
    elif pieces is not None:
        spell = pieces
    else:
        raise MlmaError(
            "aligning text to a bpe model needs the SentencePiece model of its training; copy the "
            "file that config.yaml names as bpemodel to where it says, or pack the model again"
        )
    ids = {token: i for i, token in enumerate(tokens)}
    words = []
    for word in text.split():
        plain = normalise(word, _ANY_LANGUAGE)
        if not plain:
            continue
        spellings = [spell(form) for form in (word, plain, plain.upper())]
        possible = [pieces for pieces in spellings if all(piece in ids for piece in pieces)]
        if not possible:
            unknown = next(piece for piece in spellings[1] if piece not in ids)
            raise MlmaError(
                f"the word {word!r}: the model has no symbol for {unknown!r}; spell it otherwise"
            )
        words.append((word, [ids[piece] for piece in possible[0]]))
    if not words:
        raise MlmaError("the text has no words to align; give another one")
    if token_type == "char" and CHAR_SPACE in ids:
        words[1:] = [(word, [ids[CHAR_SPACE], *spelled]) for word, spelled in words[1:]]
    return words


def _characters(text: str) -> list[str]:
    return [CHAR_SPACE if character == " " else character for character in text]
