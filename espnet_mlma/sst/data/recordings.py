"""Utterances of a corpus put back together into the recordings that they were cut from.

The utterances of a chapter of LibriSpeech are laid end to end in their order; those of a session of
VoxPopuli stand where the corpus says; any other utterance, as of Common Voice, is a recording of
its own. A session as VoxPopuli's own script cuts it has no times, and falls under the last.

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
from espnet_mlma.sst.data.shards import finished
from espnet_mlma.sst.data.synthesis import write_sentences
from espnet_mlma.text import normalise


def put_together(
    utterances: Iterable[Utterance], infos: dict[AudioFile, AudioInfo | MlmaError]
) -> list[Sentence]:
    """Sentences with their places, recording by recording, in the order they are heard.

    One whose sound cannot be read, or that has no words, is there too, as `dropped`.

    Args:
        utterances: of any corpora.
        infos: the length of each sound file, or why it has none.

    Raises:
        MlmaError: an utterance is in an archive, or two share an id.
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
    return list(chain.from_iterable(_laid_out(list(group)) for _, group in of_recording))


def _sentence(utterance: Utterance, info: AudioInfo | MlmaError) -> Sentence:
    if utterance.audio.member is not None:
        raise MlmaError(f"{utterance.audio}: in an archive; unpack it and give the files")
    dropped = drop_by_audio(utterance, info)
    start, end = (0.0, 0.0) if isinstance(info, MlmaError) else span(utterance, info)
    text, recording = utterance.text, utterance.recording or utterance.id
    if utterance.corpus == librispeech.TAG:
        # All capitals: translators would answer in capitals.
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


def _left_out(drop: Drop) -> Sentence:
    """What stands for a row of a corpus's table that could not be read."""
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


def _laid_out(sentences: list[Sentence]) -> Iterator[Sentence]:
    """The sentences of one recording; whole files end to end, spans where they are."""
    if len({sentence.audio for sentence in sentences}) < len(sentences):
        yield from sentences
        return
    clock = 0.0
    for sentence in sentences:
        seconds = sentence.end - sentence.start
        yield replace(sentence, start=clock, end=clock + seconds)
        clock += seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--corpus", choices=CORPORA, required=True)
    parser.add_argument("--root", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--split", action="append", required=True, help="may be given again")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines to write")
    parser.add_argument("--nj", type=int, default=4, help="threads that read lengths")


def run(args: argparse.Namespace) -> None:
    """Write the sentences of a corpus, unless that is done."""
    reader = reader_of(args.corpus)
    rows = [row for split in args.split for row in reader.prepare(args.root, "en", split)]
    utterances = [row for row in rows if isinstance(row, Utterance)]
    key = hashlib.sha256(json.dumps(list(map(repr, rows))).encode()).hexdigest()
    report = finished(args.out, key)
    if report is None:
        infos = probe_all({u.audio for u in utterances}, args.nj, "recordings")
        sentences = put_together(utterances, infos)
        sentences += [_left_out(row) for row in rows if isinstance(row, Drop)]
        report = write_sentences(args.out, "recordings", key, sentences)
    print(f"{report}, in {args.out}")
