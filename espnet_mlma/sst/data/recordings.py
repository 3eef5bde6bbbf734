"""Join the utterances of a corpus to the recordings that they were cut from.

LibriSpeech: the utterances of a chapter follow each other without gaps. VoxPopuli: the utterances
of a session have the times that the corpus gives. Without times, as after VoxPopuli's own script,
and in other corpora such as Common Voice, each utterance is a recording of its own.

    mlma translate recordings --corpus librispeech --root LibriSpeech \\
        --split train-clean-100 --split train-other-500 --out sentences.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

from espnet_mlma.audio import AudioInfo
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.checks import drop_by_audio, span
from espnet_mlma.data.corpora import librispeech
from espnet_mlma.data.mixtures import CORPORA, reader_of
from espnet_mlma.data.probing import probe_all
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.data.shards import finished_report
from espnet_mlma.sst.data.synthesis import write_sentences
from espnet_mlma.text import normalise


def join_utterances(
    utterances: Iterable[Utterance], infos: dict[AudioFile, AudioInfo | MlmaError]
) -> list[Sentence]:
    """Return sentences with their times, sorted by recording and time.

    Utterances with unreadable audio or without words are included, marked as dropped.

    Args:
        utterances: utterances of any corpora.
        infos: length of each audio file, or why it cannot be read.

    Raises:
        MlmaError: an utterance is in an archive, or an id occurs twice.
    """
    sentences = sorted(
        (_sentence(utterance, infos[utterance.audio]) for utterance in utterances),
        key=lambda sentence: (sentence.recording, sentence.start, sentence.id),
    )
    ids: set[str] = set()
    for sentence in sentences:
        if sentence.id in ids:
            raise MlmaError(f"{sentence.id}: two utterances have this id; read each split once")
        ids.add(sentence.id)
    of_recording = groupby(sentences, lambda sentence: sentence.recording)
    return list(chain.from_iterable(_with_times(list(group)) for _, group in of_recording))


def _sentence(utterance: Utterance, info: AudioInfo | MlmaError) -> Sentence:
    if utterance.audio.member is not None:
        raise MlmaError(
            f"{utterance.audio}: is in an archive; unpack it, or get the published layout"
        )
    dropped = drop_by_audio(utterance, info)
    start, end = (0.0, 0.0) if isinstance(info, MlmaError) else span(utterance, info)
    text, recording = utterance.text, utterance.recording or utterance.id
    if utterance.corpus == librispeech.TAG:
        # LibriSpeech is in capitals, and translators would answer in capitals.
        text, recording = text.lower(), utterance.id.rpartition("-")[0]
    reason = dropped.reason if dropped else None
    if reason is None and not normalise(text, utterance.lang):
        reason = "empty_text"
    return Sentence(
        id=utterance.id,
        recording=recording,
        audio=str(utterance.audio.path.absolute()),
        offset=start,
        start=start,
        end=max(start, end),
        speaker=utterance.speaker,
        text=text,
        dropped=reason,
    )


def _dropped_row(drop: Drop) -> Sentence:
    """Return a dropped sentence for a malformed row of a corpus's table."""
    return Sentence(
        id=drop.id,
        recording=drop.id,
        audio="",
        offset=0.0,
        start=0.0,
        end=0.0,
        speaker=drop.speaker,
        text="",
        dropped=drop.reason,
    )


def _with_times(sentences: list[Sentence]) -> Iterator[Sentence]:
    """Place one recording's sentences: whole files one after the other, spans at their times."""
    if len({sentence.audio for sentence in sentences}) < len(sentences):
        yield from sentences
        return
    clock = 0.0
    for sentence in sentences:
        seconds = sentence.end - sentence.start
        yield replace(sentence, start=clock, end=clock + seconds)
        clock += seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `recordings`."""
    parser.add_argument("--corpus", choices=CORPORA, required=True)
    parser.add_argument("--root", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--split", action="append", required=True, help="split to read; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines file to write")
    parser.add_argument("--nj", type=int, default=4, help="threads that read audio lengths")


def run(args: argparse.Namespace) -> None:
    """Write the sentences of a corpus, unless they are written, and print the report."""
    reader = reader_of(args.corpus)
    rows = [row for split in args.split for row in reader.prepare(args.root, "en", split)]
    utterances = [row for row in rows if isinstance(row, Utterance)]
    key = hashlib.sha256(json.dumps(list(map(repr, rows))).encode()).hexdigest()
    report = finished_report(args.out, key)
    if report is None:
        infos = probe_all({u.audio for u in utterances}, args.nj, "recordings")
        sentences = join_utterances(utterances, infos)
        sentences += [_dropped_row(row) for row in rows if isinstance(row, Drop)]
        report = write_sentences(args.out, "recordings", key, sentences)
    print(f"{report}, in {args.out}")
