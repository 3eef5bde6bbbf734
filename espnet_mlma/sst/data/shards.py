"""Read and write shards: JSON-lines files of records, each with a report.

The report of `words.2of4.jsonl` is `words.2of4.report.json`. It holds the stage, the number of
records, the number of dropped items by reason, and the file's SHA-256, by which damage is detected.
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
    """Select part `index` of `count` of the recordings, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse a text such as `2/4`, the second of four.

        Raises:
            ValueError: the text has another form, or the index is out of range.
        """
        index, count = map(int, text.split("/"))
        if not 1 <= index <= count:
            raise ValueError(f"{text}: the index must be from 1 to {count}")
        return cls(index, count)

    def contains(self, recording: str) -> bool:
        """Return whether a recording is in this part."""
        return zlib.crc32(recording.encode()) % self.count == self.index - 1

    def file(self, path: Path) -> Path:
        """Return the path of this part, such as `words.2of4.jsonl`; `path` if there is only one."""
        if self.count == 1:
            return path
        return path.with_name(f"{path.stem}.{self.index}of{self.count}{path.suffix}")


@dataclass(frozen=True, slots=True)
class Report:
    """Describe a finished shard.

    Attributes:
        stage: stage that wrote it.
        key: digest of the stage's options and input.
        sha256: digest of the file.
        records: number of records.
        dropped: number of dropped sentences by reason.
        seconds: length of its speech or segments.
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
    """Return the numbers of dropped items as text."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items()))
    return f"dropped: {reasons or 'none'}"


def read_sentences(path: Path) -> list[Sentence]:
    """Read the sentences of a file or of all its shards, in order; see `read`."""
    return read(path, sentence_of)


def read_segments(path: Path) -> list[Segment]:
    """Read the segments of a file or of all its shards, in order; see `read`."""
    return read(path, segment_of)


def read[T: (Sentence, Segment)](path: Path, make: Callable[[dict], T]) -> list[T]:
    """Read the records of a file or of all its shards, in order.

    Args:
        path: file such as `words.jsonl`; if missing, its shards `words.1of4.jsonl` and so on.
        make: builds a record from a JSON object.

    Raises:
        MlmaError: a shard is missing or damaged, has a malformed record, or an id occurs twice.
    """
    found: dict[str, T] = {}
    places: dict[str, str] = {}
    for shard in find_shards(path):
        for number, line in enumerate(_lines(shard), 1):
            place = f"{shard}:{number}"
            record = _parse(line, make, place)
            if record.id in found:
                raise MlmaError(
                    f"{place}: duplicate id '{record.id}', first in {places[record.id]}"
                )
            found[record.id], places[record.id] = record, place
    return list(found.values())


def _parse[T](line: str, make: Callable[[dict], T], place: str) -> T:
    try:
        return make(json.loads(line))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MlmaError(f"{place}: damaged ({error}); run its stage again") from None


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise MlmaError(f"{path}: {error.strerror}; run its stage") from None
    except UnicodeDecodeError as error:
        raise MlmaError(f"{path}: damaged at byte {error.start}; run its stage again") from None
    report = read_report(path)
    lines = text.split("\n")[:-1]  # splitlines would break at U+2028 too
    if text and not text.endswith("\n"):
        raise MlmaError(f"{path}: truncated in its last line; run its stage again")
    if report is not None and report.sha256 != hashlib.sha256(content).hexdigest():
        for number, line in enumerate(lines, 1):
            _parse(line, dict, f"{path}:{number}")
        raise MlmaError(
            f"{path}: changed since stage '{report.stage}' wrote its {report.records} records; run "
            f"the stage again, or delete {report_path(path)} if you edited the file"
        )
    return lines


def find_shards(path: Path) -> list[Path]:
    """Return the file itself if it exists, otherwise all its shards in order.

    Raises:
        MlmaError: neither exists, a shard is missing, or there are shards of several runs.
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
        raise MlmaError(f"{path}: no such file, and no shards of it; run its stage")
    if len(counts) > 1:
        raise MlmaError(
            f"{path}: has shards of {sorted(counts)} parts; delete those of the older run"
        )
    (count,) = counts
    missing = sorted(set(range(1, count + 1)) - {index for index, _ in found})
    if missing:
        raise MlmaError(
            f"{path}: {len(missing)} of {count} shards missing; run its stage with "
            f"--shard {missing[0]}/{count}"
        )
    return [found[index, count] for index in range(1, count + 1)]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file or of all its shards."""
    total = hashlib.sha256()
    for shard in find_shards(path):
        total.update(shard.read_bytes())
    return total.hexdigest()


def report_path(path: Path) -> Path:
    """Return the path of a shard's report."""
    return path.with_suffix(".report.json")


def read_report(path: Path) -> Report | None:
    """Return a shard's report, or None if it is missing or damaged."""
    try:
        return Report(**json.loads(report_path(path).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        return None


def finished_report(path: Path, key: str) -> Report | None:
    """Return a shard's report if the shard is intact and has this key, otherwise None."""
    report = read_report(path)
    if report is None or report.key != key or not path.is_file():
        return None
    is_intact = hashlib.sha256(path.read_bytes()).hexdigest() == report.sha256
    return report if is_intact else None


def write_shard(
    path: Path,
    records: Iterable[Sentence | Segment],
    stage: str,
    key: str,
    dropped: dict[str, int],
    seconds: float,
) -> Report:
    """Write a shard, then its report.

    Args:
        path: path of the shard.
        records: records in order.
        stage, key, dropped, seconds: see `Report`.

    Raises:
        MlmaError: a file cannot be written.
    """
    lines = [line_of(record) for record in records]
    content = "".join(lines)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    report = Report(stage, key, sha256, len(lines), dropped, round(seconds, 2))
    report_path(path).unlink(missing_ok=True)
    files.write(path, content)
    files.write(report_path(path), json.dumps(asdict(report)) + "\n")
    return report
