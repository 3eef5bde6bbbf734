"""The utterances of a test set with both texts, joined by id, and the units they are scored in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.data.tables import read
from espnet_mlma.errors import MlmaError
from espnet_mlma.text import LANGUAGES, normalise

Normaliser = Callable[[str, str], str]  # of a text and its language
Tokenise = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Utterance:
    """A reference and its hypothesis, both normalised.

    Args:
        missing: there is no hypothesis; the empty one then stands for it.
        heard: the language it was taken for; empty: none; None: decoding wrote no languages.
    """

    id: str
    speaker: str
    lang: str
    corpus: str
    reference: str
    hypothesis: str
    missing: bool
    heard: str | None = None


def join(data: Path, hypotheses: Path, normalise: Normaliser = normalise) -> list[Utterance]:
    """Read a test set and what was recognised on it.

    Args:
        data: `dump/raw/<set>` with `text utt2spk utt2lang utt2category`.
        hypotheses: the `text` that decoding wrote.
        normalise: makes words parted by single spaces.

    Raises:
        MlmaError: a file is missing or holds an id twice, or ids do not belong together.
    """
    names = ("text", "utt2spk", "utt2lang", "utt2category")
    text, speaker, lang, corpus = (read(data / name, "stage 3") for name in names)
    recognised = read(hypotheses, "stage 12")
    languages = hypotheses.with_name("utt2lang")
    heard = read(languages, "stage 12") if languages.exists() else None
    for table, name in ((speaker, names[1]), (lang, names[2]), (corpus, names[3])):
        unknown = next((id_ for id_ in text if id_ not in table), None)
        if unknown is not None:
            raise MlmaError(f"{data / name}: nothing about {unknown}; run stage 3 again")
    strange = next((id_ for id_ in text if lang[id_] not in LANGUAGES), None)
    if strange is not None:
        raise MlmaError(
            f"{data / 'utt2lang'}: {strange} is in {lang[strange]!r}; there are "
            f"{' '.join(LANGUAGES)}"
        )
    extra = next((id_ for id_ in recognised if id_ not in text), None)
    if extra is not None:
        raise MlmaError(
            f"{hypotheses}: {extra!r} is not in {data / 'text'}; decode the set again (stage 12)"
        )
    return [
        Utterance(
            id=id_,
            speaker=speaker[id_],
            lang=lang[id_],
            corpus=corpus[id_],
            reference=normalise(reference, lang[id_]),
            hypothesis=normalise(recognised.get(id_, ""), lang[id_]),
            missing=id_ not in recognised,
            heard=None if heard is None else heard.get(id_, ""),
        )
        for id_, reference in sorted(text.items())
    ]


def characters(text: str) -> list[str]:
    """The characters of a text; a space is written `<space>`."""
    return ["<space>" if char == " " else char for char in text]


def tokeniser(token_type: str, bpemodel: Path | None) -> Tokenise:
    """The function that cuts a text into the tokens of the model.

    Args:
        token_type: bpe or char.
        bpemodel: the sentencepiece model, for bpe.

    Raises:
        MlmaError: bpe without a model, or with one that does not load.
    """
    if token_type == "char":
        return characters
    import sentencepiece

    if bpemodel is None:
        raise MlmaError("--token_type bpe: give the sentencepiece model with --bpemodel")
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(bpemodel))
    except (OSError, RuntimeError) as error:
        raise MlmaError(f"{bpemodel}: no sentencepiece model ({error}); run stage 5") from None
    return lambda text: model.encode(text, out_type=str)
