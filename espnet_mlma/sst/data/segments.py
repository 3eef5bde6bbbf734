"""Cut recordings into segments of 30 chunks, and join single utterances to such segments.

A recording is cut every 30 chunks of 0.96 s. If a cut falls into an utterance, the next segment
starts with that utterance. Segments therefore overlap, and each utterance is complete in exactly
one of them. A dropped utterance ends a segment, and the next one starts after it; its audio is in
neither. Utterances that are not part of a longer recording are joined in random order, with a
random silence before each.

    mlma translate build --sentences pairs.jsonl --out train.jsonl

Source: Ouyang et al., CMU's IWSLT 2025 simultaneous speech translation system, section 3.2. It
does not give the lengths of the silences.
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
from espnet_mlma.sst.data.shards import finished_report, read_sentences, write_shard
from espnet_mlma.sst.data.trajectory import boundaries, chunk_at, chunks_up_to, turns
from espnet_mlma.sst.grid import CHUNK_SECONDS
from espnet_mlma.sst.languages import separator

SOURCE = "en"
CHUNKS = 30
SILENCE = (0.2, 2.0)
_SHORTEST_PART = 1e-3  # seconds
# Increase this if the same sentences give different records, so that old files are rebuilt.
_FORMAT = 2


@dataclass(frozen=True)
class PlannedSegment:
    """Describe a segment before its parts and turns are made.

    Attributes:
        sentences: sentences that start in the segment, in order; the last one may end after it.
        first: index of its first chunk in the recording.
        chunks: number of chunks.
        audio_start, audio_end: audible span of the recording, seconds; silence outside.
    """

    sentences: Sequence[Sentence]
    first: int
    chunks: int
    audio_start: float
    audio_end: float


def reason_to_drop(sentence: Sentence, chunks: int = CHUNKS) -> str | None:
    """Return why a sentence cannot be used, or None if it can.

    Args:
        sentence: aligned sentence.
        chunks: chunks per segment.

    Raises:
        MlmaError: the sentence is not aligned.
    """
    if sentence.dropped:
        return sentence.dropped
    if not sentence.pairs or not sentence.words or not sentence.pieces:
        raise MlmaError(f"{sentence.id}: has no aligned words; run the stage align first")
    if chunks_up_to(sentence.end) - chunk_at(sentence.start) > chunks:
        return "longer_than_segment"
    return None if sentence.end > sentence.start else "no_sound"


def plan_recording(sentences: Sequence[Sentence], chunks: int = CHUNKS) -> Iterator[PlannedSegment]:
    """Cut one recording into segments.

    Args:
        sentences: all sentences of the recording, in order, including dropped ones.
        chunks: chunks per segment.
    """
    silent_until = 0.0
    by_use = groupby(sentences, lambda sentence: reason_to_drop(sentence, chunks) is None)
    runs = [(is_used, list(run)) for is_used, run in by_use]
    for index, (is_used, run) in enumerate(runs):
        end = max(sentence.end for sentence in run)
        if not is_used:
            silent_until = max(silent_until, end)
            continue
        if index + 1 < len(runs):
            end = max(end, runs[index + 1][1][0].start)
        yield from _plan_run(run, silent_until, end, chunks)
        silent_until = end


def _plan_run(
    run: Sequence[Sentence], run_start: float, run_end: float, chunks: int
) -> Iterator[PlannedSegment]:
    """Cut consecutive used sentences, which are audible from `run_start` to `run_end`, seconds."""
    index, first = 0, chunk_at(run[0].start)
    while index < len(run):
        after = first + chunks
        # The first sentence that is cut off is complete in the next segment.
        following = index
        while following < len(run) and chunks_up_to(run[following].end) <= after:
            following += 1
        started = following
        while started < len(run) and chunk_at(run[started].start) < after:
            started += 1
        before = run[index - 1].end if index else run_start
        yield PlannedSegment(
            sentences=run[index:started],
            first=first,
            chunks=min(chunks, chunks_up_to(run_end) - first),
            audio_start=max(first * CHUNK_SECONDS, min(before, run[index].start)),
            audio_end=min(after * CHUNK_SECONDS, run_end),
        )
        index = following
        if index < len(run):
            start = chunk_at(run[index].start)
            # Pauses are kept, unless a whole segment would be a pause.
            first = start if start < after or start >= after + chunks else after


def make_segment(planned: PlannedSegment, id_: str) -> Segment:
    """Make the parts, turns and transcript of a segment."""
    first = planned.sentences[0]
    assert first.target is not None
    turn_texts = turns(_timed_pieces(planned.sentences), planned.first, planned.chunks)
    return Segment(
        id=id_,
        parts=tuple(_parts(planned)),
        chunks=planned.chunks,
        turns=tuple(turn_texts),
        source=SOURCE,
        target=first.target,
        heard=" ".join(_words(planned)),
    )


def _words(planned: PlannedSegment) -> Iterator[str]:
    """Yield the words that end within the audible span."""
    until = planned.audio_end + _SHORTEST_PART
    for sentence in planned.sentences:
        yield from (word for word, _, end in sentence.words or () if end <= until)


def _timed_pieces(sentences: Iterable[Sentence]) -> Iterator[tuple[str, float]]:
    """Yield the pieces of the translations with their earliest times, which never decrease."""
    latest, between = 0.0, ""
    for sentence in sentences:
        assert sentence.words and sentence.pieces and sentence.pairs and sentence.target
        ends = [min(end, sentence.end) for _, _, end in sentence.words]
        times = boundaries(ends, len(sentence.pieces), sentence.pairs)
        for piece, time in zip(sentence.pieces, times, strict=True):
            latest = max(latest, time)
            yield between + piece, latest
            between = ""
        between = separator(sentence.target)


def _parts(planned: PlannedSegment) -> Iterator[Part]:
    """Yield a span of each audio file, including pauses between sentences of the same file."""
    segment_start = planned.first * CHUNK_SECONDS
    by_file = groupby(planned.sentences, lambda s: (s.audio, round(s.offset - s.start, 3)))
    groups = [list(group) for _, group in by_file]
    for index, group in enumerate(groups):
        end = planned.audio_end
        if index < len(groups) - 1:
            end = min(end, max(sentence.end for sentence in group))
        file_start = group[0].start - group[0].offset
        start = max(planned.audio_start if index == 0 else group[0].start, file_start)
        if end - start >= _SHORTEST_PART:
            at = start - segment_start
            yield Part(group[0].audio, start - file_start, end - file_start, at)


def plan_joined(
    sentences: Iterable[Sentence],
    rng: random.Random,
    silence: tuple[float, float] = SILENCE,
    chunks: int = CHUNKS,
) -> Iterator[PlannedSegment]:
    """Join single utterances to segments in random order, each utterance once.

    Args:
        sentences: utterances; dropped ones are skipped.
        rng: draws the order and the silences.
        silence: shortest and longest silence before an utterance, seconds.
        chunks: chunks per segment; the rest after the last utterance is silent.
    """
    used = [sentence for sentence in sentences if reason_to_drop(sentence, chunks) is None]
    rng.shuffle(used)
    group: list[Sentence] = []
    clock = 0.0
    for sentence in used:
        pause, seconds = round(rng.uniform(*silence), 2), sentence.end - sentence.start
        if group and chunks_up_to(clock + pause + seconds) > chunks:
            yield PlannedSegment(group, 0, chunks, group[0].start, clock)
            group, clock = [], 0.0
        start = clock + max(0.0, min(pause, chunks * CHUNK_SECONDS - seconds - clock))
        group.append(_with_start(sentence, start))
        clock = start + seconds
    if group:
        yield PlannedSegment(group, 0, chunks, group[0].start, clock)


def _with_start(sentence: Sentence, start: float) -> Sentence:
    """Return a sentence whose times are shifted so that it starts at `start`, seconds."""
    shift = start - sentence.start
    words = tuple((word, begin + shift, end + shift) for word, begin, end in sentence.words or ())
    return replace(sentence, start=start, end=sentence.end + shift, words=words)


def group_by_recording(
    sentences: Iterable[Sentence],
) -> tuple[dict[str, list[Sentence]], list[Sentence]]:
    """Return the sentences of each longer recording, and the single utterances."""
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
    """Make the segments of recordings and single utterances.

    Args:
        sentences: sentences in order within each recording.
        rng, silence, chunks: see `plan_joined`.
        name: prefix of the ids of joined segments.
    """
    recordings, singles = group_by_recording(sentences)
    found = [
        make_segment(planned, f"{recording}-{number:05d}")
        for recording, of_recording in recordings.items()
        for number, planned in enumerate(plan_recording(of_recording, chunks))
    ]
    joined = plan_joined(singles, rng, silence, chunks)
    found += [make_segment(planned, f"{name}-{n:06d}") for n, planned in enumerate(joined)]
    return found


def parse_span(text: str) -> tuple[float, float]:
    """Parse a span of seconds such as `0.2:2.0`; raise ValueError if it is not one."""
    low, high = map(float, text.split(":"))
    if not 0 <= low <= high:
        raise ValueError(f"{text}: not a span of seconds")
    return low, high


def add_joining(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how utterances are joined: silences and seed."""
    parser.add_argument(
        "--silence",
        type=parse_span,
        default=SILENCE,
        metavar="LOW:HIGH",
        help="silence before a joined utterance in seconds (default: 0.2:2.0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of order and silences")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `build`."""
    synthesis.add_arguments(parser)
    parser.add_argument(
        "--chunks", type=natural, default=CHUNKS, help="chunks per segment (default: 30)"
    )
    add_joining(parser)


def run(args: argparse.Namespace) -> None:
    """Write the segments of a shard, unless they are written, and print its report."""
    options = {
        "chunks": args.chunks,
        "silence": args.silence,
        "seed": args.seed,
        "format": _FORMAT,
    }
    job = synthesis.Job.from_arguments("build", args, options)
    report = finished_report(job.file, key := job.key())
    if report is None:
        sentences = [s for s in read_sentences(job.source) if job.shard.contains(s.recording)]
        part = f"{args.shard.index}of{args.shard.count}"
        rng = random.Random(f"{args.seed} {part}")
        segments = build(sentences, rng, args.silence, args.chunks, f"joined-{part}")
        reasons = (reason_to_drop(sentence, args.chunks) for sentence in sentences)
        dropped = dict(Counter(reason for reason in reasons if reason))
        seconds = sum(segment.chunks for segment in segments) * CHUNK_SECONDS
        report = write_shard(job.file, segments, job.stage, key, dropped, seconds)
    print(f"{report}, in {job.file}")
