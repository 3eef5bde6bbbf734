"""Find the start and end of each word, with a CTC model or from TextGrid files.

A CTC model emits a symbol at one frame and blanks for the rest of its sound, so words seem to end
early. The recogniser corrects most of this. We extend each word by a further margin, but not into
the next word. `benchmarks/sst_word_times.py` found the margin.

    mlma translate words --sentences de.jsonl --model exp/asr_train --out words.jsonl

Source: Peng et al., Less peaky and more accurate CTC forced alignment, arXiv 2406.02560.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import espnet_mlma
from espnet_mlma.audio import read_audio
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.sst import stamps
from espnet_mlma.sst.data import synthesis
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.data.textgrid import read_words

if TYPE_CHECKING:
    from espnet_mlma.decode.recogniser import Recogniser
    from espnet_mlma.decode.transcript import Transcript, Word

MARGIN_SECONDS = 0.02
LEAST_SCORE = -2.0
_UNKNOWN = {"<unk>", "spn"}


def lengthen(words: Sequence[Word], margin: float = MARGIN_SECONDS) -> list[Word]:
    """Return words that end `margin` seconds later, but not after the start of the next word."""
    limits = [word.start for word in words[1:]] + [float("inf")]
    return [
        replace(word, end=max(word.end, min(word.end + margin, limit)))
        for word, limit in zip(words, limits, strict=False)
    ]


def mean_score(transcript: Transcript) -> float:
    """Return the mean log-probability of an aligned text's symbols, in nats.

    It is low if the text does not match the speech.
    """
    return sum(token.score for token in transcript.tokens) / len(transcript.tokens)


def model_timer(
    recogniser: Recogniser, margin: float = MARGIN_SECONDS, least_score: float = LEAST_SCORE
) -> Callable[[Sentence], Sentence]:
    """Return a function that adds word times to a sentence, or drops it.

    Args:
        recogniser: recogniser of the language.
        margin: see `lengthen`.
        least_score: sentences with a lower `mean_score` are dropped.
    """

    def add_times(sentence: Sentence) -> Sentence:
        seconds = sentence.end - sentence.start
        try:
            samples = read_audio(sentence.audio, sentence.offset, sentence.offset + seconds)
        except MlmaError:
            return replace(sentence, dropped="broken_audio")
        try:
            found = recogniser.align(samples, sentence.text)
        except MlmaError:  # a character without a symbol, or more symbols than frames
            return replace(sentence, dropped="text_not_alignable")
        score = mean_score(found)
        if score < least_score:
            return replace(sentence, score=score, dropped="low_score")
        words = [(word.text, word.start, word.end) for word in lengthen(found.words, margin)]
        return replace(sentence, score=score, words=_in_recording(words, sentence))

    return add_times


def textgrid_timer(folder: Path) -> Callable[[Sentence], Sentence]:
    """Return a function that adds word times from `<folder>/**/<sentence id>.TextGrid`.

    Times in a file are relative to the sentence's start. Sentences without a file, or with a word
    that the aligner did not know, are dropped.

    Raises:
        MlmaError: the folder has no TextGrid files. The returned function raises it if a file is
            damaged.
    """
    files = {file.stem: file for file in sorted(folder.rglob("*.TextGrid"))}
    if not files:
        raise MlmaError(f"{folder}: no *.TextGrid in it; give the folder that the aligner wrote")

    def add_times(sentence: Sentence) -> Sentence:
        if sentence.id not in files:
            return replace(sentence, dropped="no_textgrid")
        words = read_words(files[sentence.id])
        if not words or any(word.lower() in _UNKNOWN for word, _, _ in words):
            return replace(sentence, dropped="unknown_words" if words else "no_words")
        return replace(sentence, words=_in_recording(words, sentence))

    return add_times


def _in_recording(
    words: Sequence[tuple[str, float, float]], sentence: Sentence
) -> tuple[tuple[str, float, float], ...]:
    """Convert times relative to the sentence to times in the recording, clipped at its end."""

    def clip(time: float) -> float:
        return min(sentence.start + time, sentence.end)

    return tuple((word, clip(start), clip(end)) for word, start, end in words)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `words`."""
    synthesis.add_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="CTC model: experiment folder, zip or hub id")
    source.add_argument(
        "--textgrids", type=Path, metavar="DIR", help="folder of <sentence id>.TextGrid"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: cuda if available")
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN_SECONDS,
        help="seconds by which words are extended (default: %(default)s)",
    )
    parser.add_argument(
        "--least_score",
        type=float,
        default=LEAST_SCORE,
        help="drop texts with a lower mean log-probability (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Find the word times of a shard's sentences and print its report."""
    options: dict[str, object]
    if args.model:
        options = {"model": args.model, "margin": args.margin, "least_score": args.least_score}
        if weights := stamps.of_recogniser(Path(args.model)):
            options["weights"] = weights
    else:
        options = {"textgrids": str(args.textgrids)}
    job = synthesis.Job.from_arguments("words", args, options)

    def work(todo: Sequence[Sentence], _: Sequence[Sentence]) -> Iterator[Sentence]:
        if args.model:
            import_espnet()
            recogniser = espnet_mlma.load(args.model, device=args.device)
            return map(model_timer(recogniser, args.margin, args.least_score), todo)
        return map(textgrid_timer(args.textgrids), todo)

    report = synthesis.run_stage(job, work)
    print(f"{report}, in {job.file}")
