"""Reading the corpora's own tables, with errors that name file and line.

A row that cannot be read is left out and counted; a table that cannot be read is an error.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.data.utterance import Drop, Utterance, name_problem
from espnet_mlma.errors import MlmaError

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_SHOWN = 3  # archives in an error


def require(path: Path, corpus: str, home: str) -> Path:
    """Return the path if it exists.

    Args:
        path: file or folder of the corpus.
        corpus: the corpus's name, for the error.
        home: where the corpus is to be had.

    Raises:
        MlmaError: there is nothing at the path; an archive that lies near it was not unpacked.
    """
    if path.exists():
        return path
    there = next(parent for parent in path.absolute().parents if parent.is_dir())
    archives = sorted(entry.name for entry in there.iterdir() if is_archive(entry))
    do = f"unpack {', '.join(archives[:_SHOWN])} in {there}" if archives else f"get it from {home}"
    raise MlmaError(f"{corpus}: nothing at {path.absolute()}; {do}")


def is_archive(path: Path) -> bool:
    """Say whether a file is an archive by its name."""
    return path.name.endswith(_ARCHIVES) and path.is_file()


def read_table(
    path: Path, columns: Sequence[str], key: Sequence[str], delimiter: str = "\t"
) -> Iterator[dict[str, str] | Drop]:
    """Read the rows of a table whose first line names the columns.

    Quotes are ordinary characters: transcripts open them and do not close them. Only a line that
    then has another number of fields than the header is read as one with quoted fields.

    Args:
        path: the table, gzip-compressed when the name ends in `.gz`.
        columns: the columns that must be there.
        key: the columns whose values, together, must differ from row to row.
        delimiter: what parts the columns.

    Yields:
        The row; or, where it does not fit the header, what to leave out.

    Raises:
        MlmaError: the table cannot be read, a column is missing, or a key occurs twice.
    """
    seen: dict[str, int] = {}
    lines = enumerate(_lines(path), 1)
    header = next(lines, (1, ""))[1].split(delimiter)
    for column in columns:
        if column not in header:
            found = " ".join(header) or "nothing"
            found = found if len(found) < 200 else found[:197] + "..."
            raise MlmaError(f"{path}:1: no column '{column}' (found: {found}); wrong file?")
    for number, line in lines:
        fields = line.split(delimiter)
        if len(fields) != len(header):
            fields = _with_quotes(line, delimiter)
        if len(fields) != len(header):
            problem = f"{len(fields)} columns where line 1 names {len(header)}"
            yield _bad_row(path, number, problem)
            continue
        if "\0" in line:
            yield _bad_row(path, number, "a NUL character")
            continue
        row = dict(zip(header, fields, strict=True))
        _refuse_double(path, number, " ".join(row[column] for column in key), seen)
        yield row


def _with_quotes(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a carriage return, or a field of more than 128 KiB
        return line.split(delimiter)


def read_lines(path: Path, fields: int, separator: str, key: int = 0) -> Iterator[list[str] | Drop]:
    """Read the lines of a table without a header.

    Args:
        path: the table.
        fields: how many fields a line has at least; the last of them holds what remains.
        separator: what parts the fields.
        key: the field whose values must differ from line to line.

    Yields:
        The fields; or, where the line is short, what to leave out.

    Raises:
        MlmaError: the table cannot be read, or a key occurs twice.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        values = line.split(separator, fields - 1)
        if len(values) < fields:
            yield _bad_row(path, number, f"{len(values)} of {fields} fields")
        elif "\0" in line:
            yield _bad_row(path, number, "a NUL character")
        else:
            _refuse_double(path, number, values[key], seen)
            yield values


def checked(utterance: Utterance, name: str, table: Path) -> Utterance | Drop:
    """Pass an utterance on, or drop it if the name of its sound file is not safe.

    Args:
        utterance: what the row is about.
        name: the sound file's name below the corpus's folder.
        table: where the name is from.
    """
    problem = name_problem(name)
    if problem is None:
        return utterance
    return Drop(utterance.id, "unsafe_name", f"{table}: {problem}", utterance.speaker)


def _bad_row(path: Path, number: int, problem: str) -> Drop:
    return Drop(f"{path.name}:{number}", "bad_row", f"{path}:{number}: {problem}")


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from files.read_lines(path)
    except (OSError, EOFError, zlib.error) as error:
        raise MlmaError(f"{path}: not a readable table ({error}); download it again") from None


def _refuse_double(path: Path, number: int, key: str, seen: dict[str, int]) -> None:
    if key in seen:
        raise MlmaError(f"{path}:{number}: '{key}' was already on line {seen[key]}; remove one")
    seen[key] = number
