"""When each word was said: by our own CTC model, or from TextGrid files.

CTC writes a symbol at a peak and blanks for the rest of it, so that words seem to end early. The
recogniser makes up for most of that; here a word lasts a margin longer, up to where the next one
begins. The margin is what `benchmarks/sst_word_times.py` found best.

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


def lengthened(words: Sequence[Word], margin: float = MARGIN_SECONDS) -> list[Word]:
    """Words that last `margin` seconds longer, but not into the next one."""
    limits = [word.start for word in words[1:]] + [float("inf")]
    return [
        replace(word, end=max(word.end, min(word.end + margin, limit)))
        for word, limit in zip(words, limits, strict=False)
    ]


def mean_score(transcript: Transcript) -> float:
    """Mean log-probability of the symbols of an aligned text; low where it is not what is said."""
    return sum(token.score for token in transcript.tokens) / len(transcript.tokens)


def timed_by_model(
    recogniser: Recogniser, margin: float = MARGIN_SECONDS, least_score: float = LEAST_SCORE
) -> Callable[[Sentence], Sentence]:
    """A function that gives a sentence the times of its words, or the reason why it has none.

    Args:
        recogniser: that knows the language.
        margin: seconds that words last longer than it says.
        least_score: mean log-probability of symbols under which a text is not what was said.
    """

    def timed(sentence: Sentence) -> Sentence:
        seconds = sentence.end - sentence.start
        try:
            samples = read_audio(sentence.audio, sentence.offset, sentence.offset + seconds)
        except MlmaError:
            return replace(sentence, dropped="broken_audio")
        try:
            found = recogniser.align(samples, sentence.text)
        except MlmaError:  # a character without a symbol, or too many of them
            return replace(sentence, dropped="text_not_alignable")
        score = mean_score(found)
        if score < least_score:
            return replace(sentence, score=score, dropped="low_score")
        words = [(word.text, word.start, word.end) for word in lengthened(found.words, margin)]
        return replace(sentence, score=score, words=_in_recording(words, sentence))

    return timed


def timed_by_textgrid(folder: Path) -> Callable[[Sentence], Sentence]:
    """A function that gives a sentence its words from `<folder>/**/<sentence id>.TextGrid`.

    Times count from the beginning of the sentence. One without a file, or with a word that the
    aligner did not know, is dropped.

    Raises:
        MlmaError: there are no such files; later, one of them is damaged.
    """
    files = {file.stem: file for file in sorted(folder.rglob("*.TextGrid"))}
    if not files:
        raise MlmaError(f"{folder}: no *.TextGrid in it; give the folder that the aligner wrote")

    def timed(sentence: Sentence) -> Sentence:
        if sentence.id not in files:
            return replace(sentence, dropped="no_textgrid")
        words = read_words(files[sentence.id])
        if not words or any(word.lower() in _UNKNOWN for word, _, _ in words):
            return replace(sentence, dropped="unknown_words" if words else "no_words")
        return replace(sentence, words=_in_recording(words, sentence))

    return timed


def _in_recording(
    words: Sequence[tuple[str, float, float]], sentence: Sentence
) -> tuple[tuple[str, float, float], ...]:
    """Times from the sentence's beginning as times of the recording, within the sentence."""
    return tuple(
        (word, *(min(sentence.start + time, sentence.end) for time in times))
        for word, *times in words
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    synthesis.add_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="CTC model: experiment folder, zip or hub id")
    source.add_argument("--textgrids", type=Path, metavar="DIR", help="<sentence id>.TextGrid")
    parser.add_argument("--device", help="cpu, cuda, ...; without it a GPU where there is one")
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN_SECONDS,
        help="seconds that words last longer than the model says (default: %(default)s)",
    )
    parser.add_argument(
        "--least_score",
        type=float,
        default=LEAST_SCORE,
        help="mean log-probability of a text's symbols (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Time the words of a shard."""
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
            return map(timed_by_model(recogniser, args.margin, args.least_score), todo)
        return map(timed_by_textgrid(args.textgrids), todo)

    report = synthesis.run_stage(job, work)
    print(f"{report}, in {job.file}")
