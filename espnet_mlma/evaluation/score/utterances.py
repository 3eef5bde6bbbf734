"""Utterances of a test set with both texts, joined by id and aligned once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from espnet_mlma.data.tables import read
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.align import Alignment, Errors, align, count_alignment
from espnet_mlma.text import check_code, normalise

Normaliser = Callable[[str, str], str]  # of a text and its language
Tokenise = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class ScoredUtterance:
    """A reference and its hypothesis, normalised and aligned.

    Attributes:
        id: utterance id.
        test_set: name of its test set.
        lang, corpus, speaker: from the tables of stage 3.
        reference, hypothesis: normalised texts.
        missing: there is no hypothesis; an empty one stands for it.
        words, chars: alignments.
        tokens: alignment in tokens of the model; empty unless stage 13 asks for it.
        recognised_lang: language that decoding wrote, "" for none; None: it wrote no languages.
        seconds, confidence, audio: duration, mean probability that a word is right (0 to 1) and
            second column of `wav.scp`; set for reports only.
    """

    id: str
    test_set: str
    lang: str
    corpus: str
    speaker: str
    reference: str
    hypothesis: str
    missing: bool
    words: Alignment
    chars: Alignment
    tokens: Alignment = ()
    recognised_lang: str | None = None
    seconds: float = 0.0
    confidence: float | None = None
    audio: str | None = None

    @cached_property
    def word_errors(self) -> Errors:
        """Errors in words."""
        return count_alignment(self.words)

    @cached_property
    def char_errors(self) -> Errors:
        """Errors in characters."""
        return count_alignment(self.chars)


def score_set(
    data: Path,
    decoded: Path,
    normaliser: Normaliser = normalise,
    tokenise: Tokenise | None = None,
) -> Iterator[ScoredUtterance]:
    """Join a test set with its hypotheses and align them, sorted by utterance id.

    Args:
        data: `dump/raw/<set>` with `text utt2spk utt2lang utt2category`.
        decoded: folder of the set that decoding wrote, with `text` and perhaps `utt2lang`.
        normaliser: returns words separated by single spaces.
        tokenise: splits a text into the model's tokens; None: `tokens` stays empty.

    Raises:
        MlmaError: a file is missing, has a duplicate key, or the ids do not match.
    """
    names = ("text", "utt2spk", "utt2lang", "utt2category")
    text, speaker, lang, corpus = (read(data / name, "stage 3") for name in names)
    recognised = read(decoded / "text", "stage 12")
    languages = decoded / "utt2lang"
    recognised_lang = read(languages, "stage 12") if languages.exists() else None
    for table, name in ((speaker, names[1]), (lang, names[2]), (corpus, names[3])):
        unknown = next((id_ for id_ in text if id_ not in table), None)
        if unknown is not None:
            raise MlmaError(f"{data / name}: {unknown} is missing; run stage 3 again")
    for code, id_ in {lang[id_]: id_ for id_ in text}.items():
        try:
            check_code(code)
        except MlmaError as error:
            raise MlmaError(f"{data / 'utt2lang'}: {id_}: {error}") from None
    extra = next((id_ for id_ in recognised if id_ not in text), None)
    if extra is not None:
        raise MlmaError(
            f"{decoded / 'text'}: {extra!r} is not in {data / 'text'}; decode the set again "
            "(stage 12)"
        )
    shared: dict = {}  # one object per distinct pair: long tests have millions of them

    def aligned(cut: Tokenise, reference: str, hypothesis: str) -> Alignment:
        pairs = align(cut(reference), cut(hypothesis))
        return tuple(shared.setdefault(pair, pair) for pair in pairs)

    for id_ in sorted(text):
        texts = (
            normaliser(text[id_], lang[id_]),
            normaliser(recognised.get(id_, ""), lang[id_]),
        )
        yield ScoredUtterance(
            *(id_, data.name, lang[id_], corpus[id_], speaker[id_], *texts),
            missing=id_ not in recognised,
            words=aligned(str.split, *texts),
            chars=aligned(characters, *texts),
            tokens=aligned(tokenise, *texts) if tokenise else (),
            recognised_lang=None if recognised_lang is None else recognised_lang.get(id_, ""),
        )


def characters(text: str) -> list[str]:
    """Split a text into characters; a space becomes `<space>`."""
    return ["<space>" if char == " " else char for char in text]


def tokeniser(token_type: str, bpemodel: Path | None) -> Tokenise:
    """Return the function that splits a text into the model's tokens.

    Args:
        token_type: `bpe` or `char`.
        bpemodel: sentencepiece model, for `bpe`.

    Raises:
        MlmaError: `bpe` has no model, or one that does not load.
    """
    if token_type == "char":
        return characters
    import sentencepiece

    if bpemodel is None:
        raise MlmaError("--token_type bpe: give the sentencepiece model with --bpemodel")
    try:
        # Its annotations lack the arguments and the methods.
        model = cast(Any, sentencepiece.SentencePieceProcessor)(model_file=str(bpemodel))
    except (OSError, RuntimeError) as error:
        raise MlmaError(f"{bpemodel}: no sentencepiece model ({error}); run stage 5") from None
    return lambda text: model.encode(text, out_type=str)
