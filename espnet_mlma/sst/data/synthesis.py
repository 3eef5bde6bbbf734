"""Run one stage of data synthesis: read sentences, add fields, write them back.

Finished sentences are appended to a journal beside the shard. A stage that was interrupted resumes
with the same command and repeats no request. Once all sentences are done, the shard is written in
one step, in the order of the input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from espnet_mlma import files
from espnet_mlma.claims import claim
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Sentence, line_of, sentence_of
from espnet_mlma.sst.data.shards import (
    Report,
    Shard,
    digest,
    finished_report,
    read_sentences,
    write_shard,
)

# Takes the unfinished sentences and all sentences of the shard; yields each one as it is done.
Work = Callable[[Sequence[Sentence], Sequence[Sentence]], Iterator[Sentence]]


@dataclass(frozen=True)
class Job:
    """One stage on one shard.

    Attributes:
        stage: name of the stage.
        source: file of sentences, or its shards.
        out: output path; the shard's name is inserted.
        shard: part of the recordings to process.
        options: everything but the source that the result depends on.
    """

    stage: str
    source: Path
    out: Path
    shard: Shard
    options: Mapping[str, object]

    @classmethod
    def from_arguments(
        cls, stage: str, args: argparse.Namespace, options: Mapping[str, object]
    ) -> Job:
        """Create a job from the options of `add_arguments`.

        If the stage before wrote a shard with the same recordings, only that shard is read.
        """
        same = args.shard.file(args.sentences)
        source = same if same.exists() else args.sentences
        return cls(stage, source, args.out, args.shard, options)

    @property
    def file(self) -> Path:
        """Return the path of the shard to write."""
        return self.shard.file(self.out)

    def key(self) -> str:
        """Return a digest of everything that the result depends on."""
        parts = [self.stage, digest(self.source), str(self.shard), dict(self.options)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by all stages but the first."""
    parser.add_argument(
        "--sentences", type=Path, required=True, help="output of the previous stage, or its shards"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON lines file to write")
    parser.add_argument(
        "--shard",
        type=Shard.parse,
        default=Shard(),
        metavar="I/N",
        help="process only part I of N of the recordings, from 1 (default: 1/1)",
    )


def run_stage(job: Job, work: Work) -> Report:
    """Process the unfinished sentences of a job and write its shard.

    Args:
        job: stage, input and output.
        work: processes sentences; not called if all are done. It may raise MlmaError part-way.

    Returns:
        Report on the shard, also if it was finished before.

    Raises:
        MlmaError: `work` failed (the message counts the sentences kept), the source is damaged,
            another process writes the same shard, or the shard cannot be written.
    """
    key = job.key()
    if done_before := finished_report(job.file, key):
        return done_before
    sentences = [s for s in read_sentences(job.source) if job.shard.contains(s.recording)]
    with claim(job.file, "writes this shard"), Journal(job.file, key) as journal:
        todo = [s for s in sentences if s.dropped is None and s.id not in journal.done]
        if todo:
            _work_off(job, journal, work(todo, sentences), len(todo))
        result = [s if s.dropped else journal.done[s.id] for s in sentences]
        report = write_sentences(job.file, job.stage, key, result)
        journal.discard()
    return report


def _work_off(job: Job, journal: Journal, results: Iterator[Sentence], count: int) -> None:
    try:
        for sentence in tqdm(results, job.stage, count, leave=False, disable=None):
            journal.add(sentence)
    except MlmaError as error:
        raise MlmaError(
            f"{error} ({len(journal.done)} finished sentences are in {journal.path}; run the same "
            "command to resume)"
        ) from None


def write_sentences(path: Path, stage: str, key: str, sentences: Sequence[Sentence]) -> Report:
    """Write a shard of all sentences, and count the dropped ones by reason."""
    dropped = Counter(sentence.dropped for sentence in sentences if sentence.dropped)
    seconds = sum(s.end - s.start for s in sentences if not s.dropped)
    return write_shard(path, sentences, stage, key, dict(dropped), seconds)


class Journal:
    """Keep finished sentences as lines of a file; the caller must have claimed the shard.

    Args:
        shard: file that the sentences will be written to.
        key: key of the job; the journal of another job is discarded.

    Raises:
        MlmaError: the journal cannot be written.
    """

    def __init__(self, shard: Path, key: str):
        self.path = shard.with_suffix(".journal")
        self._key = key
        self.done: dict[str, Sentence] = {}
        self._file: IO[str]

    def __enter__(self) -> Journal:
        # Rewrite the file: a killed process may have left half a line at its end.
        self.done = {sentence.id: sentence for sentence in self._kept()}
        head = json.dumps({"key": self._key}) + "\n"
        files.write(self.path, head + "".join(map(line_of, self.done.values())))
        self._file = open(self.path, "a", encoding="utf-8", buffering=1)
        return self

    def _kept(self) -> Iterable[Sentence]:
        if not self.path.exists():
            return
        head, *lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        if head != json.dumps({"key": self._key}):
            print(f"{self.path}: journal of other input or options; starting over", file=sys.stderr)
            return
        broken = 0
        for line in filter(None, lines):
            try:
                yield sentence_of(json.loads(line))
            except (AttributeError, TypeError, ValueError):
                broken += 1
        if broken:
            print(f"{self.path}: {broken} broken lines, processed again", file=sys.stderr)

    def add(self, sentence: Sentence) -> None:
        """Append a finished sentence."""
        try:
            self._file.write(line_of(sentence))
        except OSError as error:
            raise MlmaError(f"cannot write {self.path}: {error.strerror}; free space") from None
        self.done[sentence.id] = sentence

    def discard(self) -> None:
        """Delete the journal once the shard is written."""
        self.path.unlink(missing_ok=True)

    def __exit__(self, *_) -> None:
        self._file.close()
