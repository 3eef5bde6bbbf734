"""Reading the corpora's own tables, with errors that name file and line."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet_mlma.errors import MlmaError


def require(path: Path, corpus: str, home: str) -> Path:
    """Return the path if it exists.

    Args:
        path: file or folder of the corpus.
        corpus: the corpus's name, for the error.
        home: where the corpus is to be had.

    Raises:
        MlmaError: there is nothing at the path.
    """
    if not path.exists():
        raise MlmaError(f"{corpus}: nothing at {path.absolute()}; get it from {home}")
    return path


def read_table(
    path: Path, columns: Sequence[str], key: str, delimiter: str = "\t", quoted: bool = False
) -> Iterator[dict[str, str]]:
    """Read the rows of a table whose first line names the columns.

    Args:
        path: the table, gzip-compressed when the name ends in `.gz`.
        columns: the columns that must be there.
        key: the column whose values must differ from row to row.
        delimiter: what parts the columns.
        quoted: whether fields may be quoted; otherwise a quote is an ordinary character.

    Raises:
        MlmaError: a column is missing, a row is short, or a key occurs twice.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    seen: dict[str, int] = {}
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines, delimiter=delimiter, quoting=quoting)
            for column in columns:
                if column not in (rows.fieldnames or ()):
                    found = " ".join(rows.fieldnames or ()) or "nothing"
                    raise MlmaError(f"{path}:1: no column '{column}' (found: {found}); wrong file?")
            for row in rows:
                number = rows.line_num
                if any(row[column] is None for column in columns):
                    raise MlmaError(f"{path}:{number}: fewer columns than its header names")
                _refuse_double(path, number, row[key], seen)
                yield row
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise MlmaError(f"{path}: not a readable table ({error}); fetch it anew") from None


def read_lines(path: Path, fields: int, separator: str, key: int = 0) -> Iterator[list[str]]:
    """Read the lines of a table without a header.

    Args:
        path: the table.
        fields: how many fields a line has at least; the last of them holds what remains.
        separator: what parts the fields.
        key: the field whose values must differ from line to line.

    Raises:
        MlmaError: a line is short, or a key occurs twice.
    """
    seen: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                values = line.rstrip("\n").split(separator, fields - 1)
                if len(values) < fields:
                    raise MlmaError(f"{path}:{number}: {len(values)} of {fields} fields")
                _refuse_double(path, number, values[key], seen)
                yield values
    except (OSError, UnicodeDecodeError) as error:
        raise MlmaError(f"{path}: not a readable table ({error}); fetch it anew") from None


def _refuse_double(path: Path, number: int, key: str, seen: dict[str, int]) -> None:
    if key in seen:
        raise MlmaError(f"{path}:{number}: '{key}' was already on line {seen[key]}; remove one")
    seen[key] = number
