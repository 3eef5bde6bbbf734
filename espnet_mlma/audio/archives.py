"""Locate audio files: plain files, members of archives, values of a `wav.scp`.

An archive is a tar file or a Parquet file (`parquet.py`).
"""

from __future__ import annotations

import gzip
import io
import shlex
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from espnet_mlma.audio import parquet
from espnet_mlma.errors import MlmaError

_OF_TAR = ["tar", "-xzOf"]
_OF_PARQUET = ["python3", "-m", parquet.__name__]


@dataclass(frozen=True, slots=True)
class AudioFile:
    """An audio file of any format and rate, alone or inside an archive.

    Attributes:
        path: the file, or the archive.
        member: name in the archive; None for a plain file.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"


def iter_archive(archive: Path, members: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Read members of an archive in its order, in one pass.

    Args:
        archive: a tar file, compressed by gzip or not, or a Parquet file.
        members: names to read; names that the archive lacks are ignored.

    Yields:
        The name of a member, and its content as an open file.

    Raises:
        MlmaError: the archive is missing or damaged.
    """
    if parquet.is_parquet(archive):
        return parquet.iter_audio(archive, members)
    return _iter_tar(archive, members)


def _iter_tar(archive: Path, members: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    wanted = set(members)
    if archive.exists() and not archive.is_file():  # opening a named pipe would block
        raise MlmaError(f"{archive}: not a file; download the archive again")
    try:
        with _decompressed(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                content = tar.extractfile(entry) if name in wanted and entry.isfile() else None
                if content is not None:
                    yield name, io.BytesIO(content.read())
            _check_end(plain, tar.offset)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise MlmaError(
            f"{archive}: not a whole tar archive ({error}); download it again"
        ) from None


def _decompressed(archive: Path) -> BinaryIO:
    with open(archive, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(archive)) if is_gzip else open(archive, "rb")


def _check_end(plain: BinaryIO, offset: int) -> None:
    """Detect damage that tarfile ignores: it takes an invalid header for the end of the archive.

    Args:
        plain: the archive, decompressed.
        offset: where tarfile stopped.
    """
    if isinstance(plain, gzip.GzipFile):
        while plain.read(2**20):  # up to the checksum
            pass
        return
    plain.seek(offset)
    if plain.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {offset}")


def scp_value(audio: AudioFile) -> str:
    """Return the value for a `wav.scp`: an absolute path, or a pipe that any Kaldi tool can run."""
    path = str(audio.path.absolute())
    if audio.member is None:
        return path
    command = _OF_PARQUET if parquet.is_parquet(audio.path) else _OF_TAR
    return f"{' '.join(command)} {_quoted(path)} {_quoted(audio.member)} |"


def _quoted(word: str) -> str:
    """Quote a word for the shell, also where `shlex.quote` would leave it bare."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


def parse_scp_value(value: str) -> AudioFile:
    """Parse what `scp_value` returns.

    Raises:
        MlmaError: the value is empty, or a pipe of another form.
    """
    if not value.endswith("|"):
        if not value:
            raise MlmaError("the path of the audio file is empty")
        return AudioFile(Path(value))
    try:
        command = shlex.split(value.removesuffix("|"))
    except ValueError:  # unclosed quotes
        command = []
    if len(command) < 4 or command[:-2] not in (_OF_TAR, _OF_PARQUET):
        raise MlmaError(f"this recipe does not write such a pipe: {value}")
    return AudioFile(Path(command[-2]), command[-1])
