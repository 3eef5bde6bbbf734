"""Open audio files, and read parts of them."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from espnet_mlma.errors import MlmaError

Source = str | Path | BinaryIO


class DamagedAudio(MlmaError):
    """Audio is cut off or damaged; raised after its readable samples were yielded.

    Attributes:
        transcript: of these samples, set by `Recogniser.transcribe`; None elsewhere.
    """

    transcript: Any = None

    @classmethod
    def at(cls, name: str, reached: float, whole: float | None = None) -> DamagedAudio:
        """Make an error about the file `name`, damaged after `reached` of `whole` seconds."""
        of_whole = "" if whole is None else f" of {whole:.1f} s"
        return cls(f"{name}: cut off or damaged after {reached:.1f} s{of_whole}; copy it again")


class UntilDamage:
    """Iterate over blocks up to damage, and keep the error for later.

    Args:
        blocks: from `audio_blocks`.

    Attributes:
        damage: the error that ended the blocks; None: no error so far.
    """

    def __init__(self, blocks: Iterable[np.ndarray]):
        self.damage: DamagedAudio | None = None
        self._blocks = blocks

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            yield from self._blocks
        except DamagedAudio as error:
            self.damage = error


@dataclass(frozen=True)
class FilePart:
    """One recording in a file. An ordinary file has one part, joined files have several.

    Attributes:
        start, end: its range of bytes in the file.
        patches: offsets in the file, and the bytes to read there, which correct a wrong length.
        missing: bytes that the header declares beyond the end, per byte of audio.
        is_cut: some audio is missing, and no header says how much.
        rate: in Hz, if the frames were counted.
        seconds: length by the counted frames; None: not counted.
        declared: length by a header, seconds; None: unknown.
        is_ffmpeg: try FFmpeg first, because libsndfile stops at the declared length.
    """

    start: int
    end: int
    patches: tuple[tuple[int, bytes], ...] = ()
    missing: float = 0.0
    is_cut: bool = False
    rate: int = 0
    seconds: float | None = None
    declared: float | None = None
    is_ffmpeg: bool = False


class PartFile(io.RawIOBase):
    """Present a part of an open file as a file, with its patches applied.

    Args:
        file: seekable; each read moves its position.
        part: the part.
    """

    def __init__(self, file: BinaryIO, part: FilePart):
        self.name = str(getattr(file, "name", "audio"))
        self._file = file
        self._part = part
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the part."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset, as of any file, and return the position."""
        size = self._part.end - self._part.start
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer) -> int:
        """Read as many bytes as are available and fit into a buffer."""
        first = self._part.start + self._at
        wanted = min(len(buffer), self._part.end - first)
        if wanted <= 0:
            return 0
        data = bytearray(read_at(self._file, first, wanted))
        for offset, patch in self._part.patches:
            for place, byte in enumerate(patch, offset - first):
                if 0 <= place < len(data):
                    data[place] = byte
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read up to `size` bytes at an offset; nothing if the offset is invalid."""
    try:
        file.seek(offset)
    except (OSError, OverflowError, ValueError):
        return b""
    return file.read(size)


def name_of(source: Source) -> str:
    """Return the name of a source for errors: its path, or the name of an open file."""
    return str(source if isinstance(source, str | Path) else getattr(source, "name", "audio"))


@contextmanager
def seekable(source: Source, name: str) -> Iterator[BinaryIO]:
    """Open a source at its beginning; a pipe is first copied to a temporary file.

    Args:
        source: a path, or an open binary file, which stays open.
        name: of the source, for errors.

    Raises:
        MlmaError: the file is missing, empty or unreadable; also replaces any other error that is
            raised while it is open.
    """
    with ExitStack() as stack:
        try:
            if isinstance(source, str | Path):
                file: BinaryIO = stack.enter_context(open(source, "rb"))
            else:
                file = source
            if not file.seekable():
                copy = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
                shutil.copyfileobj(file, copy)
                file = copy
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
        except FileNotFoundError:
            raise MlmaError(f"{name}: no such file") from None
        except OSError as error:
            raise MlmaError(f"{name}: cannot be read ({error.strerror})") from None
        except ValueError:  # a path with NUL, or a closed file
            raise MlmaError(f"{name!r}: cannot be read") from None
        if size == 0:
            raise MlmaError(f"{name}: empty file")
        try:
            yield file
        except MlmaError:
            raise
        except Exception as error:  # of a disk, or of an invalid header
            why = " ".join(str(error).split()) or type(error).__name__
            raise MlmaError(f"{name}: cannot be read ({why})") from error
