"""Write test talks for the translator: sound files and the times of their sentences.

A recording with several sentences is one talk. Recordings of a single utterance are joined in
random order, with a random silence before each.

    mlma translate talks --sentences translated.jsonl --out talks --seconds 60

The folder holds `<talk>.flac` and `sentences.jsonl`, the references for `score`.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from espnet_mlma.arguments import refuse_to_replace
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder
from espnet_mlma.sst.data.records import Part, Sentence, line_of
from espnet_mlma.sst.data.segments import SILENCE, add_joining, group_by_recording
from espnet_mlma.sst.data.shards import dropped_line, read_sentences
from espnet_mlma.sst.data.sound import mix_at_offsets
from espnet_mlma.sst.grid import SAMPLE_RATE


def talks(
    sentences: Iterable[Sentence],
    rng: random.Random,
    silence: tuple[float, float] = SILENCE,
    seconds: float = 60.0,
) -> Iterator[list[Sentence]]:
    """Group sentences into talks, each sentence with its time in the talk.

    Args:
        sentences: dropped and empty ones are skipped.
        rng: draws the order and the silences.
        silence: shortest and longest before a joined utterance, seconds.
        seconds: a talk of joined utterances ends once it is at least this long.
    """
    recordings, singles = group_by_recording(s for s in sentences if _reason_to_drop(s) is None)
    yield from recordings.values()
    rng.shuffle(singles)
    clock, number = 0.0, 0
    talk: list[Sentence] = []
    for sentence in singles:
        start = clock + rng.uniform(*silence)
        clock = start + sentence.end - sentence.start
        name = f"joined-{number:03d}"
        talk.append(replace(sentence, recording=name, start=start, end=clock))
        if clock >= seconds:
            yield talk
            talk, clock, number = [], 0.0, number + 1
    if talk:
        yield talk


def _reason_to_drop(sentence: Sentence) -> str | None:
    return sentence.dropped or (None if sentence.end > sentence.start else "no_sound")


def mix_talk(talk: Sequence[Sentence]) -> np.ndarray:
    """Mix the sentences of a talk into one signal, with silence between them.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        MlmaError: see `mix_at_offsets`.
    """
    spans = ((s.audio, s.offset, s.offset + s.end - s.start, s.start) for s in talk)
    samples = round(max(sentence.end for sentence in talk) * SAMPLE_RATE)
    return mix_at_offsets((Part(*span) for span in spans), samples)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `talks`."""
    parser.add_argument(
        "--sentences", type=Path, nargs="+", required=True, help="output of the stage translate"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write; an existing one is replaced"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="shortest talk of joined utterances (default: 60)",
    )
    add_joining(parser)


def run(args: argparse.Namespace) -> None:
    """Write the talks and print their number.

    Raises:
        MlmaError: all sentences are dropped, a file cannot be read, or the folder cannot be
            written.
    """
    refuse_to_replace(args.out, args.sentences)
    rng = random.Random(args.seed)
    sentences = list(chain.from_iterable(map(read_sentences, args.sentences)))
    found = list(talks(sentences, rng, args.silence, args.seconds))
    if not found:
        raise MlmaError(
            f"{args.sentences[0]}: all sentences are dropped; see the report of the stage before"
        )

    def fill(folder: Path) -> None:
        for talk in found:
            samples = mix_talk(talk)
            try:
                soundfile.write(folder / f"{talk[0].recording}.flac", samples, SAMPLE_RATE)
            except soundfile.SoundFileError as error:  # a full disk is one
                raise OSError(str(error)) from None
        lines = "".join(line_of(sentence) for talk in found for sentence in talk)
        (folder / "sentences.jsonl").write_text(lines, encoding="utf-8")

    replace_folder(args.out, fill)
    seconds = sum(max(sentence.end for sentence in talk) for talk in found)
    dropped = Counter(reason for reason in map(_reason_to_drop, sentences) if reason)
    print(
        f"talks: {len(found)} of {sum(map(len, found))} sentences, {seconds:.0f} s; "
        f"{dropped_line(dropped)}, in {args.out}"
    )
