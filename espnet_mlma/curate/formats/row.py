"""Rows of a corpus of any format, and what its readers share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_mlma.data.corpora.tsv import json_rows, lines
from espnet_mlma.data.utterance import Drop
from espnet_mlma.numbers import number_of

_REMEDY = "check the file"


@dataclass(frozen=True, slots=True)
class Row:
    """One transcribed utterance.

    Attributes:
        key: its id in the source, or the name of its audio file.
        path: its audio file; relative to the folder of the manifest, or absolute.
        text: the transcript.
        place: `<file>:<line>`, for messages.
        start, end: its span of the file in seconds; None for the whole file.
        speaker: empty if unknown.
        lang: as the source has it; empty if unknown.
    """

    key: str
    path: str
    text: str
    place: str
    start: float | None = None
    end: float | None = None
    speaker: str = ""
    lang: str = ""


def bad_row(place: str, problem: str) -> Drop:
    """Return the drop of a row that cannot be read.

    Args:
        place: `<file>:<line>`.
        problem: what is wrong with it.
    """
    return Drop(place.rpartition("/")[2], "bad_row", f"{place}: {problem}")


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and text of each line that is not empty.

    Raises:
        MlmaError: the file cannot be read.
    """
    for number, line in enumerate(lines(path, _REMEDY), 1):
        if line.strip():
            yield f"{path}:{number}", line


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | Drop]]:
    """Yield the place and object of each line of a JSON lines file; other lines are drops.

    Raises:
        MlmaError: the file cannot be read.
    """
    for number, row in json_rows(path, _REMEDY):
        place = f"{path}:{number}"
        yield place, row if isinstance(row, dict) else bad_row(place, row)


def seconds(value: object) -> float | None:
    """Return a time in seconds, at least 0; None: it is none."""
    number = number_of(value)
    return number if number is not None and number >= 0 else None


def string(value: object) -> str:
    """Return a string or whole number as a string; empty for anything else."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if isinstance(value, str) else str(value) if is_number else ""
