"""Segments of 30 chunks, cut from recordings as they are or joined from single utterances.

A recording is cut every 30 chunks of 0.96 s. Where a cut falls into an utterance the next segment
begins where that does, so that segments overlap and each utterance is whole in one of them. An
utterance that is of no use ends the segment before it, the next one begins after it; its sound is
in neither. Utterances that are no part of a longer recording are joined in random order with random
silences before each.

    mlma translate build --sentences pairs.jsonl --out train.jsonl

Source: Ouyang et al., CMU's IWSLT 2025 simultaneous speech translation system, section 3.2. They do
not say how long their silences are.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import natural
from espnet_mlma.sst.data import synthesis
from espnet_mlma.sst.data.records import Part, Segment, Sentence
from espnet_mlma.sst.data.shards import finished, read_sentences, write_shard
from espnet_mlma.sst.data.trajectory import boundaries, chunk_at, chunks_up_to, turns
from espnet_mlma.sst.grid import CHUNK_SECONDS
from espnet_mlma.sst.languages import separator

SOURCE = "en"
CHUNKS = 30
SILENCE = (0.2, 2.0)
_SHORTEST_PART = 1e-3  # seconds
# Increase when the same sentences give different records, so that old files are rebuilt.
_FORMAT = 2


@dataclass(frozen=True)
class Cut:
    """A segment to be: the sentences that begin in it, its first chunk, and what is heard of it.

    Attributes:
        sentences: in order; the last one may go on after the segment.
        first: index of its first chunk in the recording.
        chunks: how many it has.
        heard_from, heard_until: span of the recording, seconds; silence outside.
    """

    sentences: Sequence[Sentence]
    first: int
    chunks: int
    heard_from: float
    heard_until: float


def reason_to_drop(sentence: Sentence, chunks: int = CHUNKS) -> str | None:
    """Why a sentence can be in no segment; None: it can."""
    if sentence.dropped:
        return sentence.dropped
    if not sentence.pairs or not sentence.words or not sentence.pieces:
        raise MlmaError(f"{sentence.id}: has no pairs of words; run the stage align first")
    if chunks_up_to(sentence.end) - chunk_at(sentence.start) > chunks:
        return "longer_than_segment"
    return None if sentence.end > sentence.start else "no_sound"


def cuts(sentences: Sequence[Sentence], chunks: int = CHUNKS) -> Iterator[Cut]:
    """Cut one recording into segments.

    Args:
        sentences: all of the recording, in order, also those of no use.
        chunks: of a segment.
    """
    silent_until = 0.0
    of_use = groupby(sentences, lambda sentence: reason_to_drop(sentence, chunks) is None)
    runs = [(is_of_use, list(run)) for is_of_use, run in of_use]
    for place, (is_of_use, run) in enumerate(runs):
        ends = max(sentence.end for sentence in run)
        if not is_of_use:
            silent_until = max(silent_until, ends)
            continue
        if place + 1 < len(runs):
            ends = max(ends, runs[place + 1][1][0].start)
        yield from _cuts_of_run(run, silent_until, ends, chunks)
        silent_until = ends


def _cuts_of_run(run: Sequence[Sentence], begins: float, ends: float, chunks: int) -> Iterator[Cut]:
    """Cut sentences all of use, heard between two moments of their recording."""
    index, first = 0, chunk_at(run[0].start)
    while index < len(run):
        after = first + chunks
        # The first that is not heard whole is whole in the next segment.
        following = index
        while following < len(run) and chunks_up_to(run[following].end) <= after:
            following += 1
        begun = following
        while begun < len(run) and chunk_at(run[begun].start) < after:
            begun += 1
        before = run[index - 1].end if index else begins
        yield Cut(
            sentences=run[index:begun],
            first=first,
            chunks=min(chunks, chunks_up_to(ends) - first),
            heard_from=max(first * CHUNK_SECONDS, min(before, run[index].start)),
            heard_until=min(after * CHUNK_SECONDS, ends),
        )
        index = following
        if index < len(run):
            start = chunk_at(run[index].start)
            # A pause is part of the speech, unless a whole segment would be one.
            first = start if start < after or start >= after + chunks else after


def segment_of_cut(cut: Cut, id_: str) -> Segment:
    """The sound and the turns of a cut."""
    target = cut.sentences[0].target
    begins = cut.first * CHUNK_SECONDS
    return Segment(
        id=id_,
        parts=tuple(_parts(cut, begins)),
        chunks=cut.chunks,
        turns=tuple(turns(_timed_pieces(cut.sentences), cut.first, cut.chunks)),
        source=SOURCE,
        target=target,
        heard=" ".join(_words(cut)),
    )


def _words(cut: Cut) -> Iterator[str]:
    """The words of which the end is heard too."""
    until = cut.heard_until + _SHORTEST_PART
    for sentence in cut.sentences:
        yield from (word for word, _, end in sentence.words if end <= until)


def _timed_pieces(sentences: Iterable[Sentence]) -> Iterator[tuple[str, float]]:
    """The text of sentences piece by piece, with times that never fall from one to the next."""
    latest, between = 0.0, ""
    for sentence in sentences:
        ends = [min(end, sentence.end) for _, _, end in sentence.words]
        times = boundaries(ends, len(sentence.pieces), sentence.pairs)
        for piece, time in zip(sentence.pieces, times, strict=True):
            latest = max(latest, time)
            yield between + piece, latest
            between = ""
        between = separator(sentence.target)


def _parts(cut: Cut, begins: float) -> Iterator[Part]:
    """What is heard: a span of each file; of one that holds several sentences, the pauses too."""
    clocks = groupby(cut.sentences, lambda s: (s.audio, round(s.offset - s.start, 3)))
    groups = [list(group) for _, group in clocks]
    for place, group in enumerate(groups):
        is_last = place == len(groups) - 1
        file_begins = group[0].start - group[0].offset
        start = max(cut.heard_from if place == 0 else group[0].start, file_begins)
        end = min(cut.heard_until if is_last else max(s.end for s in group), cut.heard_until)
        if end - start >= _SHORTEST_PART:
            yield Part(group[0].audio, start - file_begins, end - file_begins, start - begins)


def joined(
    sentences: Iterable[Sentence],
    rng: random.Random,
    silence: tuple[float, float] = SILENCE,
    chunks: int = CHUNKS,
) -> Iterator[Cut]:
    """Join utterances that are recordings of their own, each of use once, in random order.

    Args:
        sentences: those of no use are left out.
        rng: of the order and the silences.
        silence: shortest and longest before an utterance, seconds.
        chunks: of a segment; what the last utterance leaves of it is silence.
    """
    of_use = [sentence for sentence in sentences if reason_to_drop(sentence, chunks) is None]
    rng.shuffle(of_use)
    group: list[Sentence] = []
    clock = 0.0
    for sentence in of_use:
        pause, seconds = round(rng.uniform(*silence), 2), sentence.end - sentence.start
        if group and chunks_up_to(clock + pause + seconds) > chunks:
            yield Cut(group, 0, chunks, group[0].start, clock)
            group, clock = [], 0.0
        start = clock + max(0.0, min(pause, chunks * CHUNK_SECONDS - seconds - clock))
        group.append(_moved(sentence, start))
        clock = start + seconds
    if group:
        yield Cut(group, 0, chunks, group[0].start, clock)


def _moved(sentence: Sentence, start: float) -> Sentence:
    """A sentence as if it began elsewhere in its recording."""
    by = start - sentence.start
    words = tuple((word, begin + by, end + by) for word, begin, end in sentence.words)
    return replace(sentence, start=start, end=sentence.end + by, words=words)


def by_recording(
    sentences: Iterable[Sentence],
) -> tuple[dict[str, list[Sentence]], list[Sentence]]:
    """The sentences of each recording that holds several, and those that are recordings alone."""
    recordings: dict[str, list[Sentence]] = {}
    singles: list[Sentence] = []
    for sentence in sentences:
        if sentence.recording == sentence.id:
            singles.append(sentence)
        else:
            recordings.setdefault(sentence.recording, []).append(sentence)
    return recordings, singles


def build(
    sentences: Sequence[Sentence],
    rng: random.Random,
    silence: tuple[float, float] = SILENCE,
    chunks: int = CHUNKS,
    name: str = "joined",
) -> list[Segment]:
    """All segments of some recordings.

    Args:
        sentences: in order within each recording.
        rng, silence, chunks: as of `joined`.
        name: begins the ids of segments that are joined.
    """
    recordings, singles = by_recording(sentences)
    found = [
        segment_of_cut(cut, f"{recording}-{number:05d}")
        for recording, of_recording in recordings.items()
        for number, cut in enumerate(cuts(of_recording, chunks))
    ]
    of_singles = joined(singles, rng, silence, chunks)
    found += [segment_of_cut(cut, f"{name}-{n:06d}") for n, cut in enumerate(of_singles)]
    return found


def parse_span(text: str) -> tuple[float, float]:
    """`0.2:2.0` as two seconds; raises ValueError where it is none."""
    low, high = map(float, text.split(":"))
    if not 0 <= low <= high:
        raise ValueError(f"{text}: not a span of seconds")
    return low, high


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    synthesis.add_arguments(parser)
    parser.add_argument("--chunks", type=natural, default=CHUNKS, help="of a segment (default: 30)")
    parser.add_argument(
        "--silence",
        type=parse_span,
        default=SILENCE,
        metavar="LOW:HIGH",
        help="seconds before each joined utterance (default: 0.2:2.0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of order and silences (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Write the segments of a shard, unless that is done."""
    options = {"chunks": args.chunks, "silence": args.silence, "seed": args.seed}
    options["format"] = _FORMAT
    job = synthesis.Job.from_arguments("build", args, options)
    report = finished(job.file, key := job.key())
    if report is None:
        sentences = [s for s in read_sentences(job.source) if job.shard.has(s.recording)]
        part = f"{args.shard.index}of{args.shard.count}"
        rng = random.Random(f"{args.seed} {part}")
        segments = build(sentences, rng, args.silence, args.chunks, f"joined-{part}")
        reasons = (reason_to_drop(sentence, args.chunks) for sentence in sentences)
        dropped = dict(Counter(reason for reason in reasons if reason))
        seconds = sum(segment.chunks for segment in segments) * CHUNK_SECONDS
        report = write_shard(job.file, segments, job.stage, key, dropped, seconds)
    print(f"{report}, in {job.file}")
