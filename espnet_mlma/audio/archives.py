"""Where sound files lie: in tar archives, and in a `wav.scp`."""

from __future__ import annotations

import gzip
import io
import shlex
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from espnet_mlma.audio import SAMPLE_RATE, AudioInfo, probe, read_audio
from espnet_mlma.errors import MlmaError

__all__ = [
    "SAMPLE_RATE",
    "AudioInfo",
    "iter_archive",
    "parse_scp_value",
    "probe",
    "read_audio",
    "scp_value",
]


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A sound file of any format and rate."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A sound file inside a tar archive, compressed or not."""

    archive: Path
    member: str

    def __str__(self) -> str:
        return f"{self.archive}:{self.member}"


def iter_archive(archive: Path, members: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Read members of a tar archive in the order they lie there, in one pass.

    Args:
        archive: a tar file, compressed by gzip or not.
        members: the names wanted; one that is not in the archive is simply not yielded.

    Raises:
        MlmaError: the archive is missing or damaged.
    """
    wanted = set(members)
    if archive.exists() and not archive.is_file():  # a pipe would be waited for
        raise MlmaError(f"{archive}: no file; download the archive again")
    try:
        with _decompressed(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if name in wanted and entry.isfile():
                    yield name, io.BytesIO(tar.extractfile(entry).read())
            _check_end(plain, tar.offset)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise MlmaError(
            f"{archive}: not a whole tar archive ({error}); download it again"
        ) from None


def _decompressed(archive: Path) -> BinaryIO:
    with open(archive, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(archive) if is_gzip else open(archive, "rb")


def _check_end(plain: BinaryIO, offset: int) -> None:
    """Find damage that tarfile passes over: at a header that is none it ends as at the last one.

    Args:
        plain: the archive, decompressed.
        offset: where tarfile ended.
    """
    if isinstance(plain, gzip.GzipFile):
        while plain.read(2**20):  # up to the checksum
            pass
        return
    plain.seek(offset)
    if plain.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {offset}")


def scp_value(audio: AudioFile | ArchiveMember) -> str:
    """The second column of a `wav.scp`: an absolute path, or a pipe that any Kaldi tool can run."""
    if isinstance(audio, AudioFile):
        return str(audio.path.absolute())
    return f"tar -xzOf {_quoted(str(audio.archive.absolute()))} {_quoted(audio.member)} |"


def _quoted(word: str) -> str:
    """A word as a shell takes it; always in quotes, so that the table looks alike everywhere."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


def parse_scp_value(value: str) -> AudioFile | ArchiveMember:
    """The inverse of `scp_value`.

    Raises:
        MlmaError: the value is empty, or a pipe of another form.
    """
    if not value.endswith("|"):
        if not value:
            raise MlmaError("no path of a sound file")
        return AudioFile(Path(value))
    try:
        command = shlex.split(value.removesuffix("|"))
    except ValueError:  # quotes that do not close
        command = []
    if len(command) != 4 or command[:2] != ["tar", "-xzOf"]:
        raise MlmaError(f"a pipe that this recipe does not write: {value}")
    return ArchiveMember(Path(command[2]), command[3])
