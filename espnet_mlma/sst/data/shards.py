"""Records in files of JSON lines, in shards that are whole or refused.

Beside a shard `words.2of4.jsonl` lies `words.2of4.report.json`: what made it, how many lines it
has, what was dropped and why, and the SHA-256 by which damage shows.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.records import Segment, Sentence, line_of, segment_of, sentence_of


@dataclass(frozen=True, slots=True)
class Shard:
    """The `index`-th of `count` parts of the work, counted from 1; a recording is all in one."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/4` is the second of four.

        Raises:
            ValueError: it is something else.
        """
        index, count = map(int, text.split("/"))
        if not 1 <= index <= count:
            raise ValueError(f"{text}: not one of the {count}")
        return cls(index, count)

    def has(self, recording: str) -> bool:
        """Whether a recording is in this part."""
        return zlib.crc32(recording.encode()) % self.count == self.index - 1

    def file(self, path: Path) -> Path:
        """Where this part of a file is: `words.2of4.jsonl` for `words.jsonl`; all of one, there."""
        if self.count == 1:
            return path
        return path.with_name(f"{path.stem}.{self.index}of{self.count}{path.suffix}")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a shard; `key` tells what it was made from.

    Attributes:
        stage: that made it.
        key: digest of its options and of what it read.
        sha256: of the file.
        records: lines in it.
        dropped: sentences of no use, by reason.
        seconds: of speech or segments in it.
    """

    stage: str
    key: str
    sha256: str
    records: int
    dropped: dict[str, int]
    seconds: float

    def __str__(self) -> str:
        hours = f"{self.seconds / 3600:.2f} h"
        return f"{self.stage}: {self.records} in {hours}; {dropped_line(self.dropped)}"


def dropped_line(dropped: Mapping[str, int]) -> str:
    """How many were dropped for which reason, for people."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
    return f"dropped: {reasons or 'none'}"


def read_sentences(path: Path) -> list[Sentence]:
    """The sentences of a file or of all its shards, in order; see `read`."""
    return read(path, sentence_of)


def read_segments(path: Path) -> list[Segment]:
    """The segments of a file or of all its shards, in order; see `read`."""
    return read(path, segment_of)


def read[T: (Sentence, Segment)](path: Path, make: Callable[[dict], T]) -> list[T]:
    """The records of a file or of all its shards, in order.

    Args:
        path: `words.jsonl`, also where that is `words.1of4.jsonl` to `words.4of4.jsonl`.
        make: a record from a JSON object.

    Raises:
        MlmaError: a shard is missing, was damaged since it was written, or holds something else.
    """
    found: dict[str, T] = {}
    places: dict[str, str] = {}
    for shard in shards_of(path):
        for number, line in enumerate(_lines(shard), 1):
            place = f"{shard}:{number}"
            record = _parse(line, make, place)
            if record.id in found:
                raise MlmaError(f"{place}: '{record.id}' was already in {places[record.id]}")
            found[record.id], places[record.id] = record, place
    return list(found.values())


def _parse[T](line: str, make: Callable[[dict], T], place: str) -> T:
    try:
        return make(json.loads(line))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MlmaError(f"{place}: damaged ({error}); run the stage that writes it again") from None


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise MlmaError(f"{path}: {error.strerror}; run the stage that writes it") from None
    except UnicodeDecodeError as error:
        raise MlmaError(f"{path}: damaged at byte {error.start}; run its stage again") from None
    report = read_report(path)
    lines = text.split("\n")[:-1]  # splitlines would break at U+2028 too
    if text and not text.endswith("\n"):
        raise MlmaError(f"{path}: cut off in its last line; run the stage that writes it again")
    if report is not None and report.sha256 != hashlib.sha256(content).hexdigest():
        for number, line in enumerate(lines, 1):
            _parse(line, dict, f"{path}:{number}")
        raise MlmaError(
            f"{path}: not what stage '{report.stage}' wrote ({report.records} records); "
            f"run that again, or delete {report_path(path)} if you changed it yourself"
        )
    return lines


def shards_of(path: Path) -> list[Path]:
    """The files that together are one: itself, or its shards.

    Raises:
        MlmaError: there is neither, a shard is missing, or there are shards of several runs.
    """
    if path.exists():
        return [path]
    form = re.compile(re.escape(path.stem) + r"\.(\d+)of(\d+)" + re.escape(path.suffix))
    found = {}
    for file in path.parent.glob(f"{path.stem}.*of*{path.suffix}"):
        if match := form.fullmatch(file.name):
            found[int(match[1]), int(match[2])] = file
    counts = {count for _, count in found}
    if not found:
        raise MlmaError(f"{path}: no such file, and no shards of it; run the stage that writes it")
    if len(counts) > 1:
        raise MlmaError(f"{path}: shards of {sorted(counts)}; delete those of the older run")
    (count,) = counts
    missing = sorted(set(range(1, count + 1)) - {index for index, _ in found})
    if missing:
        raise MlmaError(
            f"{path}: {len(missing)} of {count} shards missing; run its stage with "
            f"--shard {missing[0]}/{count}"
        )
    return [found[index, count] for index in range(1, count + 1)]


def digest(path: Path) -> str:
    """SHA-256 of a file or of all its shards."""
    total = hashlib.sha256()
    for shard in shards_of(path):
        total.update(shard.read_bytes())
    return total.hexdigest()


def report_path(path: Path) -> Path:
    """Where the report on a shard lies."""
    return path.with_suffix(".report.json")


def read_report(path: Path) -> Report | None:
    """The report on a shard; None: there is none that can be read."""
    try:
        return Report(**json.loads(report_path(path).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None


def finished(path: Path, key: str) -> Report | None:
    """The report on a shard that is whole and made from the same; None if it is to be made."""
    report = read_report(path)
    if report is None or report.key != key or not path.is_file():
        return None
    whole = hashlib.sha256(path.read_bytes()).hexdigest() == report.sha256
    return report if whole else None


def write_shard(
    path: Path,
    records: Iterable[Sentence | Segment],
    stage: str,
    key: str,
    dropped: dict[str, int],
    seconds: float,
) -> Report:
    """Write records, then the report that says they are whole.

    Args:
        path: of the shard.
        records: in order.
        stage, key, dropped, seconds: as of `Report`.

    Raises:
        MlmaError: they cannot be written.
    """
    lines = [line_of(record) for record in records]
    content = "".join(lines)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    report = Report(stage, key, sha256, len(lines), dropped, round(seconds, 2))
    report_path(path).unlink(missing_ok=True)
    files.write(path, content)
    files.write(report_path(path), json.dumps(asdict(report)) + "\n")
    return report
