"""A plain table: `file<TAB>text` lines, or `file<TAB>speaker<TAB>text`; no header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.curate.formats.row import Row, bad_row, numbered_lines
from espnet_mlma.data.utterance import Drop


def matches(source: Path) -> bool:
    """Say whether the first line of a file has a tab."""
    if not source.is_file() or source.suffix not in (".tsv", ".txt"):
        return False
    return "\t" in next(numbered_lines(source), ("", ""))[1]


def rows(source: Path) -> Iterator[Row | Drop]:
    """Read the lines.

    Raises:
        MlmaError: the file cannot be read.
    """
    for place, line in numbered_lines(source):
        name, *rest = line.split("\t")
        if len(rest) not in (1, 2):
            yield bad_row(place, f"{len(rest) + 1} fields, not file, text or file, speaker, text")
        else:
            speaker = rest[0] if len(rest) == 2 else ""
            yield Row(name, name, rest[-1], place, speaker=speaker)
