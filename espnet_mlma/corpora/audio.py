"""Where sound files lie: in tar archives, and in a `wav.scp`."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from espnet_mlma.audio import SAMPLE_RATE, AudioInfo, probe, read_audio
from espnet_mlma.corpora.utterance import ArchiveMember, AudioFile
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

_PIPE = re.compile(r"tar -xzOf '([^']+)' '([^']+)' \|")


def iter_archive(archive: Path, members: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Read members of a tar archive in the order they lie there, in one pass.

    Args:
        archive: a tar file, compressed by gzip or not.
        members: the names wanted; one that is not in the archive is simply not yielded.

    Raises:
        MlmaError: the archive is missing or damaged.
    """
    wanted = set(members)
    try:
        with _decompressed(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if name in wanted and entry.isfile():
                    yield name, io.BytesIO(tar.extractfile(entry).read())
            _check_end(plain, tar.offset)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise MlmaError(f"{archive}: not a whole tar archive ({error}); fetch it anew") from None


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
    if "'" in f"{audio.archive.absolute()}{audio.member}":
        raise MlmaError(f"{audio}: a quote in the name of an archive or member; rename it")
    return f"tar -xzOf '{audio.archive.absolute()}' '{audio.member}' |"


def parse_scp_value(value: str) -> AudioFile | ArchiveMember:
    """The inverse of `scp_value`.

    Raises:
        MlmaError: the value is a pipe of another form.
    """
    pipe = _PIPE.fullmatch(value)
    if pipe:
        return ArchiveMember(Path(pipe[1]), pipe[2])
    if value.endswith("|"):
        raise MlmaError(f"wav.scp: a pipe that this recipe does not write: {value}")
    return AudioFile(Path(value))
