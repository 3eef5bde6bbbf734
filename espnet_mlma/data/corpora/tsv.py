"""Read the tables of corpora, with errors that name file and line.

An invalid row is dropped and counted; an unreadable table is an error.
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
_SHOWN = 3  # archives named in an error


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
        MlmaError: the table cannot be read, a column is missing, or a key is a duplicate.
    """
    seen: dict[str, int] = {}
    lines = enumerate(_lines(path), 1)
    header = next(lines, (1, ""))[1].split(delimiter)
    for column in columns:
        if column not in header:
            found = " ".join(header) or "nothing"
            found = found if len(found) < 200 else found[:197] + "..."
            raise MlmaError(
                f"{path}:1: column '{column}' is missing (found: {found}); check the file"
            )
    for number, line in lines:
        fields = line.split(delimiter)
        if len(fields) != len(header):
            fields = _with_quotes(line, delimiter)
        if len(fields) != len(header):
            problem = f"{len(fields)} columns, but line 1 has {len(header)}"
            yield _bad_row(path, number, problem)
            continue
        if "\0" in line:
            yield _bad_row(path, number, "NUL character")
            continue
        row = dict(zip(header, fields, strict=True))
        if key:
            _refuse_duplicate(path, number, " ".join(row[column] for column in key), seen)
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
        fields: minimum number of fields; the last one takes the rest of the line.
        separator: between fields.
        key: the field whose values must be unique.

    Yields:
        The fields, or a drop if the line has too few.

    Raises:
        MlmaError: the table cannot be read, or a key is a duplicate.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        values = line.split(separator, fields - 1)
        if len(values) < fields:
            yield _bad_row(path, number, f"{len(values)} of {fields} fields")
        elif "\0" in line:
            yield _bad_row(path, number, "NUL character")
        else:
            _refuse_duplicate(path, number, values[key], seen)
            yield values


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


def _lines(path: Path) -> Iterator[str]:
    try:
        yield from files.read_lines(path)
    except (OSError, EOFError, zlib.error) as error:
        raise MlmaError(f"{path}: cannot read the table ({error}); download it again") from None


def _refuse_duplicate(path: Path, number: int, key: str, seen: dict[str, int]) -> None:
    if key in seen:
        raise MlmaError(
            f"{path}:{number}: duplicate key '{key}', first on line {seen[key]}; remove one"
        )
    seen[key] = number
