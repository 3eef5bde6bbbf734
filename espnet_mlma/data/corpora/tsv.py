"""Read the tables of corpora, with errors that name file and line.

An invalid row is dropped and counted; an unreadable table is an error.
"""

from __future__ import annotations

import csv
import json
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from espnet_mlma import files
from espnet_mlma.data.utterance import Drop, Utterance, name_problem
from espnet_mlma.errors import MlmaError

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_SHOWN = 3  # archives named in an error
_LONGEST_PROBLEM = 200
_REMEDY = "download it again"


def require(path: Path, corpus: str, home: str) -> Path:
    """Return the path if it exists.

    Args:
        path: file or folder of the corpus.
        corpus: name of the corpus, for the error.
        home: where to download it.

    Raises:
        MlmaError: nothing is at the path; archives nearby that may need unpacking are named.
    """
    if path.exists():
        return path
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    archives = sorted(entry.name for entry in there.iterdir() if is_archive(entry))
    do = (
        f"unpack {', '.join(archives[:_SHOWN])} in {there}"
        if archives
        else f"download it from {home}"
    )
    raise MlmaError(f"{corpus}: nothing at {path.absolute()}; {do}")


def is_archive(path: Path) -> bool:
    """Say whether a file is an archive, by its name."""
    return path.name.endswith(_ARCHIVES) and path.is_file()


def read_table(
    path: Path, columns: Sequence[str], key: Sequence[str], delimiter: str = "\t"
) -> Iterator[dict[str, str] | Drop]:
    """Read the rows of a table whose first line names the columns.

    Quotes are ordinary characters, because transcripts have unbalanced ones. Only a line whose
    number of fields differs from the header's is read again with quoted fields.

    Args:
        path: the table, gzip-compressed when the name ends in `.gz`.
        columns: the columns that must exist.
        key: the columns whose values, together, must be unique; none: rows may repeat.
        delimiter: between columns.

    Yields:
        The row, or a drop if it does not match the header.

    Raises:
        MlmaError: the table cannot be read, a column is missing, or, after the last row, a key is
            a duplicate.
    """
    rows = partial(_table_rows, path, columns, delimiter)
    if not key:
        yield from (row for _, row in rows())
        return
    yield from _unique(path, rows, lambda row: " ".join(row[column] for column in key))


def _table_rows(
    path: Path, columns: Sequence[str], delimiter: str
) -> Iterator[tuple[int, dict[str, str] | Drop]]:
    numbered = enumerate(lines(path, _REMEDY), 1)
    header = next(numbered, (1, ""))[1].split(delimiter)
    for column in columns:
        if column not in header:
            found = " ".join(header) or "nothing"
            found = found if len(found) < 200 else found[:197] + "..."
            raise MlmaError(
                f"{path}:1: column '{column}' is missing (found: {found}); check the file"
            )
    for number, line in numbered:
        fields = line.split(delimiter)
        if len(fields) != len(header):
            fields = _with_quotes(line, delimiter)
        if len(fields) != len(header):
            problem = f"{len(fields)} columns, but line 1 has {len(header)}"
            yield number, _bad_row(path, number, problem)
        elif "\0" in line:
            yield number, _bad_row(path, number, "NUL character")
        else:
            yield number, dict(zip(header, fields, strict=True))


def _with_quotes(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a carriage return, or a field of more than 128 KiB
        return line.split(delimiter)


def read_lines(path: Path, fields: int, separator: str, key: int = 0) -> Iterator[list[str] | Drop]:
    """Read the lines of a table without a header.

    Args:
        path: the table.
        fields: minimum number of fields; the last one takes the rest of the line.
        separator: between fields.
        key: the field whose values must be unique.

    Yields:
        The fields, or a drop if the line has too few.

    Raises:
        MlmaError: the table cannot be read, or, after the last row, a key is a duplicate.
    """
    rows = partial(_line_rows, path, fields, separator)
    yield from _unique(path, rows, lambda row: row[key])


def _line_rows(path: Path, fields: int, separator: str) -> Iterator[tuple[int, list[str] | Drop]]:
    for number, line in enumerate(lines(path, _REMEDY), 1):
        values = line.split(separator, fields - 1)
        if len(values) < fields:
            yield number, _bad_row(path, number, f"{len(values)} of {fields} fields")
        elif "\0" in line:
            yield number, _bad_row(path, number, "NUL character")
        else:
            yield number, values


def json_rows(path: Path, remedy: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Read a file of JSON objects, one on each line; empty lines are ignored.

    Args:
        path: the file.
        remedy: what to do if it cannot be read.

    Yields:
        The number of a line, and its object, or what is wrong with the line.

    Raises:
        MlmaError: the file cannot be read.
    """
    for number, line in enumerate(lines(path, remedy), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON ({error})"[:_LONGEST_PROBLEM]
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


def checked(utterance: Utterance, name: str, table: Path) -> Utterance | Drop:
    """Return an utterance, or a drop if the name of its audio file is unsafe.

    Args:
        utterance: of the row.
        name: path of the audio file in the corpus's folder.
        table: the table with the row.
    """
    problem = name_problem(name)
    if problem is None:
        return utterance
    return Drop(utterance.id, "unsafe_name", f"{table}: {problem}", utterance.speaker)


def _bad_row(path: Path, number: int, problem: str) -> Drop:
    return Drop(f"{path.name}:{number}", "bad_row", f"{path}:{number}: {problem}")


def lines(path: Path, remedy: str) -> Iterator[str]:
    """Read the lines of a table, without their ends.

    Args:
        path: the table.
        remedy: what to do if it cannot be read.

    Raises:
        MlmaError: it cannot be read.
    """
    try:
        yield from files.read_lines(path)
    except (OSError, EOFError, zlib.error) as error:
        raise MlmaError(f"{path}: cannot read the table ({error}); {remedy}") from None


def _unique[Row: (dict[str, str], list[str])](
    path: Path,
    read: Callable[[], Iterator[tuple[int, Row | Drop]]],
    key_of: Callable[[Row], str],
) -> Iterator[Row | Drop]:
    """Yield the rows of a table; after the last one, refuse a key that occurs twice.

    Only the hash of each key is kept, in 8 bytes. Where two hashes are equal, the table is read
    again and its keys are compared.
    """
    hashes = array("q")
    for _, row in read():
        if not isinstance(row, Drop):
            hashes.append(hash(key_of(row)))
        yield row
    ordered = np.sort(np.frombuffer(hashes, np.int64))
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    first: dict[str, int] = {}
    for number, row in read() if repeated else ():
        if isinstance(row, Drop) or hash(key := key_of(row)) not in repeated:
            continue
        if key in first:
            raise MlmaError(
                f"{path}:{number}: duplicate key '{key}', first on line {first[key]}; remove one"
            )
        first[key] = number
