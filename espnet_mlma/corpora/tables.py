"""Reading the corpora's own tables, with errors that name file and line."""

from __future__ import annotations

import csv
import gzip
import zlib
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
    path: Path, columns: Sequence[str], key: Sequence[str], delimiter: str = "\t"
) -> Iterator[dict[str, str]]:
    """Read the rows of a table whose first line names the columns.

    Quotes are ordinary characters: transcripts open them and do not close them. Only a line that
    then has another number of fields than the header is read as one with quoted fields.

    Args:
        path: the table, gzip-compressed when the name ends in `.gz`.
        columns: the columns that must be there.
        key: the columns whose values, together, must differ from row to row.
        delimiter: what parts the columns.

    Raises:
        MlmaError: a column is missing, a row does not fit the header, or a key occurs twice.
    """
    seen: dict[str, int] = {}
    lines = enumerate(_lines(path), 1)
    header = next(lines, (1, ""))[1].split(delimiter)
    for column in columns:
        if column not in header:
            found = " ".join(header) or "nothing"
            raise MlmaError(f"{path}:1: no column '{column}' (found: {found}); wrong file?")
    for number, line in lines:
        fields = line.split(delimiter)
        if len(fields) != len(header):
            fields = next(csv.reader([line], delimiter=delimiter), [])
        if len(fields) != len(header):
            raise MlmaError(
                f"{path}:{number}: {len(fields)} columns where line 1 names {len(header)}"
            )
        row = dict(zip(header, fields, strict=True))
        _refuse_double(path, number, " ".join(row[column] for column in key), seen)
        yield row


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
    for number, line in enumerate(_lines(path), 1):
        values = line.split(separator, fields - 1)
        if len(values) < fields:
            raise MlmaError(f"{path}:{number}: {len(values)} of {fields} fields")
        _refuse_double(path, number, values[key], seen)
        yield values


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MlmaError(f"{path}: not a readable table ({error}); fetch it anew") from None


def _refuse_double(path: Path, number: int, key: str, seen: dict[str, int]) -> None:
    if key in seen:
        raise MlmaError(f"{path}:{number}: '{key}' was already on line {seen[key]}; remove one")
    seen[key] = number
