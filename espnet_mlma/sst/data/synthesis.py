"""A stage of data synthesis: sentences in, the same sentences knowing more out.

What is done is kept line by line in a journal beside the shard, so that a stage that was stopped,
by Ctrl-C or by a server that died, goes on with the same command and asks for nothing twice. Once
all sentences are done the shard is written whole, in the order of the input.
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
from espnet_mlma.sst.data.shards import Report, Shard, digest, finished, read_sentences, write_shard

# Gets the sentences to do and all of the shard's; yields each of the former as it is done.
Work = Callable[[Sequence[Sentence], Sequence[Sentence]], Iterator[Sentence]]


@dataclass(frozen=True)
class Job:
    """One stage on one shard.

    Attributes:
        stage: name.
        source: sentences, a file or its shards.
        out: where the result goes; a shard's name is put in.
        shard: which part of the recordings.
        options: all that the result depends on beside the source.
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
        """Of what `add_arguments` adds; a shard of the stage before with the same recordings, if
        that is there, is all that is read."""
        same = args.shard.file(args.sentences)
        source = same if same.exists() else args.sentences
        return cls(stage, source, args.out, args.shard, options)

    @property
    def file(self) -> Path:
        """The shard that it writes."""
        return self.shard.file(self.out)

    def key(self) -> str:
        """Digest of what the result depends on."""
        parts = [self.stage, digest(self.source), str(self.shard), dict(self.options)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What all stages but the first take."""
    parser.add_argument(
        "--sentences", type=Path, required=True, help="of the stage before: a file or its shards"
    )
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines to write")
    parser.add_argument(
        "--shard",
        type=Shard.parse,
        default=Shard(),
        metavar="I/N",
        help="only the recordings of this part of the work, counted from 1 (default: 1/1)",
    )


def run_stage(job: Job, work: Work) -> Report:
    """Do what is left of a job.

    Args:
        job: what to do.
        work: does it; not called if nothing is left. It may raise an MlmaError half-way.

    Returns:
        What became of the shard, also if it was whole before.

    Raises:
        MlmaError: of `work`, with how much is kept; the source is damaged; another process is at
            the same shard; it cannot be written.
    """
    key = job.key()
    if done_before := finished(job.file, key):
        return done_before
    sentences = [s for s in read_sentences(job.source) if job.shard.has(s.recording)]
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
            f"{error} (the {len(journal.done)} sentences done are kept in {journal.path}; the same "
            "command goes on from there)"
        ) from None


def write_sentences(path: Path, stage: str, key: str, sentences: Sequence[Sentence]) -> Report:
    """Write a shard of sentences, those of no use among them, and count them by reason."""
    dropped = Counter(sentence.dropped for sentence in sentences if sentence.dropped)
    seconds = sum(s.end - s.start for s in sentences if not s.dropped)
    return write_shard(path, sentences, stage, key, dict(dropped), seconds)


class Journal:
    """The sentences that are done, as lines in a file; its writer has claimed the shard.

    Args:
        shard: the file that the sentences are for.
        key: of the job; a journal of another job is begun anew.

    Raises:
        MlmaError: it cannot be written.
    """

    def __init__(self, shard: Path, key: str):
        self.path = shard.with_suffix(".journal")
        self._key = key
        self.done: dict[str, Sentence] = {}
        self._file: IO[str]

    def __enter__(self) -> Journal:
        # Written anew, so that a line that a kill left half-written is not continued.
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
            print(f"{self.path}: of other input or options, begun anew", file=sys.stderr)
            return
        broken = 0
        for line in filter(None, lines):
            try:
                yield sentence_of(json.loads(line))
            except (AttributeError, TypeError, ValueError):
                broken += 1
        if broken:
            print(f"{self.path}: {broken} broken lines, done again", file=sys.stderr)

    def add(self, sentence: Sentence) -> None:
        """Note a sentence that is done."""
        try:
            self._file.write(line_of(sentence))
        except OSError as error:
            raise MlmaError(f"cannot write {self.path}: {error.strerror}; make room") from None
        self.done[sentence.id] = sentence

    def discard(self) -> None:
        """Delete it: the shard is written."""
        self.path.unlink(missing_ok=True)

    def __exit__(self, *_) -> None:
        self._file.close()
