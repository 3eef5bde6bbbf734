"""Read Parquet files with embedded audio, as the Hugging Face hub has them.

A member is `<row group>/<row in the group>/<name>`, counted from 0, with the name that the file
gives the audio in that row. The name is compared when the row is read, so a file that was replaced
by another edition is not taken for the first one. Columns are read on their own and in batches, so
a table is read without its audio.

    python3 -m espnet_mlma.audio.parquet FILE MEMBER    writes the audio as it is in the file
"""

from __future__ import annotations

import io
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from espnet_mlma.arguments import ArgumentParser, first_line
from espnet_mlma.errors import MlmaError, run_cli

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

SUFFIX = ".parquet"
_BYTES, _NAME = "audio.bytes", "audio.path"
_ROWS = 1024  # in a batch of texts and numbers
_CLIPS = 16  # in a batch of audio
_BUFFER = 2**20  # bytes of a column read at a time
_LFS_POINTER = b"version https://git-lfs"
_MEMBER = re.compile(r"(\d{1,9})/(\d{1,9})(?:/(.*))?", re.DOTALL)


def is_parquet(path: Path) -> bool:
    """Say whether a file is a Parquet file, by its name."""
    return path.suffix == SUFFIX


def iter_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the rows of a Parquet file, without their audio.

    Args:
        path: the file; it has a column `audio` of `bytes` and `path`.
        columns: columns of texts or numbers that must exist.
        optional: columns that are read if they exist.

    Yields:
        The member that holds the row's audio, and the row: a value, or None, for each column.

    Raises:
        MlmaError: the file is missing, damaged or not Parquet, or a column is missing or holds
            neither texts nor numbers.
    """
    with opened(path) as file:
        names = [file.schema.column(i).path for i in range(len(file.schema))]
        check_columns(path, names, (*columns, _BYTES, _NAME))
        read = [*columns, *(column for column in optional if column in names)]
        for column in read:
            _check_type(path, column, file.schema_arrow.field(column).type)
        for group in range(file.num_row_groups):
            batches = file.iter_batches(
                _ROWS, row_groups=[group], columns=[*read, _NAME], use_threads=False
            )
            row = 0
            for batch in batches:
                values = [batch.column(column).to_pylist() for column in read]
                for name, *of_row in zip(_audio(batch, "path"), *values, strict=True):
                    member = _member(group, row, name.as_py())
                    yield member, dict(zip(read, of_row, strict=True))
                    row += 1
            if row != (declared := file.metadata.row_group(group).num_rows):
                raise MlmaError(
                    f"{path}: row group {group} has {row} of {declared} rows; download it again"
                )


def iter_audio(path: Path, members: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Read the audio of rows in the file's order, a few clips at a time.

    Args:
        path: the Parquet file.
        members: as `iter_rows` yields them; rows that the file lacks are ignored.

    Yields:
        A member, and its audio as an open file, which is empty where the row has none.

    Raises:
        MlmaError: the file is missing or damaged, or a row has another name than the member.
    """
    wanted: dict[int, dict[int, str]] = defaultdict(dict)
    for member in members:
        if found := _MEMBER.fullmatch(member):
            wanted[int(found[1])][int(found[2])] = member
    with opened(path) as file:
        for group in sorted(wanted.keys() & set(range(file.num_row_groups))):
            batches = file.iter_batches(
                _CLIPS, row_groups=[group], columns=[_BYTES, _NAME], use_threads=False
            )
            row = 0
            for batch in batches:
                clips = _audio(batch, "bytes")
                for at, name in enumerate(_audio(batch, "path")):
                    member = wanted[group].get(row)
                    if member is not None:
                        _check_name(path, member, _member(group, row, name.as_py()))
                        yield member, io.BytesIO(clips[at].as_py() or b"")
                    row += 1


def check_columns(path: Path, there: Sequence[str], wanted: Sequence[str]) -> None:
    """Check that a Parquet file has some columns.

    Raises:
        MlmaError: one is missing.
    """
    for column in wanted:
        if column not in there:
            found = " ".join(there)
            found = found if len(found) < 200 else f"{found[:197]}..."
            raise MlmaError(
                f"{path}: column '{column}' is missing (found: {found}); check the file"
            )


def _audio(batch: pyarrow.RecordBatch, field: str) -> pyarrow.Array:
    """Return a field of the column `audio`; null where the column is."""
    audio = batch.column("audio")
    return audio.flatten()[audio.type.get_field_index(field)]


def _member(group: int, row: int, name: str | None) -> str:
    name = PurePosixPath(name or "").name
    return f"{group}/{row}/{name}" if name else f"{group}/{row}"


def name_of(member: str) -> str:
    """Return the name that the file gives a member's audio; empty if it has none."""
    found = _MEMBER.fullmatch(member)
    return (found[3] or "") if found else ""


def _check_name(path: Path, member: str, there: str) -> None:
    if member != there:
        raise MlmaError(
            f"{path}: has {there} in place of {member}; the file was replaced, so run stage 1 again"
        )


def _check_type(path: Path, column: str, kind: pyarrow.DataType) -> None:
    from pyarrow import types

    values = kind.value_type if types.is_dictionary(kind) else kind
    known = (types.is_string, types.is_large_string, types.is_integer, types.is_floating)
    if not (types.is_null(values) or any(is_known(values) for is_known in known)):
        raise MlmaError(f"{path}: column '{column}' has values of type {kind}; check the file")


@contextmanager
def opened(path: Path) -> Iterator[ParquetFile]:
    """Open a Parquet file.

    Raises:
        MlmaError: the file is missing, damaged or not Parquet; also while it is open.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    if path.exists() and not path.is_file():  # opening a named pipe would block
        raise MlmaError(f"{path}: not a file; download it again")
    try:
        with open(path, "rb") as file:
            head = file.read(len(_LFS_POINTER))
            if head == _LFS_POINTER:
                raise MlmaError(f"{path}: is a Git LFS pointer; run git lfs pull")
            if not head.startswith(b"PAR1"):
                raise MlmaError(f"{path}: is not a Parquet file; download it again")
            yield ParquetFile(file, buffer_size=_BUFFER, page_checksum_verification=True)
    except UnicodeDecodeError as error:
        raise MlmaError(f"{path}: has text that is not UTF-8 ({error}); check the file") from None
    except (OSError, pyarrow.ArrowException) as error:
        why = " ".join(str(error).split())
        raise MlmaError(f"{path}: not a whole Parquet file ({why}); download it again") from None


def main(argv: Sequence[str] | None = None) -> None:
    """Write the audio of one row to the standard output.

    Raises:
        MlmaError: the row does not exist, or the file cannot be read.
    """
    parser = ArgumentParser(
        prog="python3 -m espnet_mlma.audio.parquet", description=first_line(__doc__)
    )
    parser.add_argument("file", type=Path, help="a Parquet file")
    parser.add_argument("member", help="<row group>/<row>/<name>, as in wav.scp")
    args = parser.parse_args(argv)
    found = next(iter_audio(args.file, [args.member]), None)
    if found is None:
        raise MlmaError(f"{args.file}: has no row {args.member}; run stage 1 again")
    sys.stdout.buffer.write(found[1].read())


if __name__ == "__main__":
    run_cli(main)
