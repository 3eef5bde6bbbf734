"""Check that an acoustic model can write the words of an n-gram model.

A language model in capital letters, in another encoding or with punctuation loads without an error.
Its words that the acoustic model cannot write are never found, and the texts get worse.
"""

from __future__ import annotations

import codecs
import gzip
import mmap
from collections.abc import Iterator, Set
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.errors import MlmaError

# Share of a language model's words, by probability, that the acoustic model must be able to write.
# Numbers and foreign names take a few percent.
LEAST_WRITABLE = 0.9
# Share that may not be UTF-8. Texts from the web have a few such words.
MOST_GARBLED = 0.001
_NO_WORDS = frozenset({b"<s>", b"</s>", b"<unk>"})
_KENLM = b"mmap lm http://kheafield.com/code"
_FIRST_WORD = b"<unk>\0"  # of the list of words at the end of a KenLM binary


def check_encoding(path: Path) -> None:
    """Refuse a language model with a byte order mark, which KenLM does not read.

    Raises:
        MlmaError: it has one, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise MlmaError(f"{path}: {error.strerror}; give an ARPA or KenLM binary file") from None
    if head.startswith(codecs.BOM_UTF8):
        raise MlmaError(f"{path}: begins with a byte order mark; save it as UTF-8 without one")
    if encoding := files.other_encoding(head):
        raise MlmaError(f"{path}: is in {encoding}; convert it to UTF-8")


def complaint(path: Path, letters: Set[str]) -> str | None:
    """Describe what is wrong with a language model's words.

    Args:
        path: an ARPA file, perhaps compressed by gzip, or a KenLM binary; KenLM has read it.
        letters: that the acoustic model writes.

    Returns:
        One line; None: nothing is wrong, or the file has no list of its words.
    """
    total = writable = 0.0
    undecodable = other_case = 0.0
    garbled = unwritable = None
    for word, probability in _words(path):
        total += probability
        try:
            text = word.decode("utf-8")
        except UnicodeDecodeError:
            undecodable += probability
            garbled = garbled or word.decode("utf-8", "backslashreplace")
            continue
        if letters >= set(text):
            writable += probability
        else:
            unwritable = unwritable or text
            if any(letters >= set(form) for form in (text.lower(), text.upper())):
                other_case += probability
    if undecodable > MOST_GARBLED * total:
        return f"{path}: the word {garbled} is not UTF-8 and is never found; convert the file"
    if unwritable is None or writable >= LEAST_WRITABLE * total:
        return None
    unknown = next(char for char in unwritable if char not in letters)
    remedy = "normalise its text with espnet_mlma.text.normalise, as in training"
    if other_case > (total - writable) / 2:
        remedy = "change the case of its words: the acoustic model writes the other case"
    return (
        f"{path}: the acoustic model can write only {writable / total:.0%} of this language "
        f"model's words (none with {unknown!r}, as in {unwritable!r}); {remedy}"
    )


def _words(path: Path) -> Iterator[tuple[bytes, float]]:
    """Yield words and their probabilities; in a binary file all count the same."""
    with path.open("rb") as file:
        head = file.read(len(_KENLM))
    listed = _of_binary(path) if head == _KENLM else _of_arpa(path)
    for word, probability in listed:
        if word.lower() not in _NO_WORDS:
            yield word, probability


def _of_arpa(path: Path) -> Iterator[tuple[bytes, float]]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else path.open("rb") as lines:
        for line in lines:
            if line.strip() == b"\\1-grams:":
                break
        for line in lines:
            fields = line.split()  # bytes, at ASCII blanks only, as in KenLM
            if len(fields) < 2:
                break
            yield fields[1], 10 ** float(fields[0])


def _of_binary(path: Path) -> Iterator[tuple[bytes, float]]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.rfind(_FIRST_WORD)
        words = [] if start < 0 else data[start:].split(b"\0")
    # The file has no list, or <unk> was found among the numbers before it.
    if words and not words.pop():
        yield from ((word, 1.0) for word in words)
