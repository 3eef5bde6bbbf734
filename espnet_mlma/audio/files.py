"""Open files to read sound from, and views of a part of one."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from espnet_mlma.errors import MlmaError

Source = str | Path | BinaryIO


class DamagedAudio(MlmaError):
    """Audio is cut off or damaged; the samples that are there were given before this is raised.

    Attributes:
        transcript: what `Recogniser.transcribe` recognised in them; None elsewhere.
    """

    transcript = None

    @classmethod
    def at(cls, name: str, reached: float, whole: float | None = None) -> DamagedAudio:
        """An error about the file `name`, damaged after `reached` of `whole` seconds."""
        of_whole = "" if whole is None else f" of {whole:.1f} s"
        return cls(f"{name}: cut off or damaged after {reached:.1f} s{of_whole}; copy it again")


class UntilDamage:
    """Blocks up to damage, so that what is there can be used before the damage is reported.

    Args:
        blocks: as of `audio_blocks`.

    Attributes:
        damage: what ended the blocks; None: nothing yet.
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
class Part:
    """One recording in a file. An ordinary file is one part, joined files are several.

    Attributes:
        start, end: its bytes in the file.
        patches: offsets in the file, and the bytes to read there instead of a wrong length.
        missing: bytes that the header promises beyond the end, for each byte of sound.
        is_cut: some of it is missing, and no header tells how much.
        rate: in Hz, where the frames were counted.
        seconds: length by the frames that are there; None: not counted.
        promised: length that a header tells, seconds; None: not known.
        is_ffmpeg: FFmpeg is to be tried first, libsndfile stops where the header says.
    """

    start: int
    end: int
    patches: tuple[tuple[int, bytes], ...] = ()
    missing: float = 0.0
    is_cut: bool = False
    rate: int = 0
    seconds: float | None = None
    promised: float | None = None
    is_ffmpeg: bool = False


class View(io.RawIOBase):
    """A part of an open file as a file, with its patches applied.

    Args:
        file: seekable; its position moves with each read.
        part: of it.
    """

    def __init__(self, file: BinaryIO, part: Part):
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
        """Read into a buffer what fits and is there."""
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
    """Read up to `size` bytes at an offset, which a damaged header may have set anywhere."""
    try:
        file.seek(offset)
    except (OSError, OverflowError, ValueError):
        return b""
    return file.read(size)


def name_of(source: Source) -> str:
    """What to call a source in errors: its path, or an open file's name."""
    return str(source if isinstance(source, str | Path) else getattr(source, "name", "audio"))


@contextmanager
def seekable(source: Source, name: str) -> Iterator[BinaryIO]:
    """Open a source at its beginning; a pipe is first copied into a temporary file.

    Args:
        source: a path, or an open binary file, which stays open.
        name: what to call it in errors.

    Raises:
        MlmaError: no such file, an empty one, or it cannot be read; and for whatever is raised
            while it is open.
    """
    with ExitStack() as stack:
        try:
            file = source
            if isinstance(source, str | Path):
                file = stack.enter_context(open(source, "rb"))
            if not file.seekable():
                pipe, file = file, stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(pipe, file)
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
        except FileNotFoundError:
            raise MlmaError(f"{name}: no such file") from None
        except OSError as error:
            raise MlmaError(f"{name}: cannot be read ({error.strerror})") from None
        except ValueError:  # of a path with a NUL, or a closed file
            raise MlmaError(f"{name!r}: cannot be read") from None
        if size == 0:
            raise MlmaError(f"{name}: empty file")
        try:
            yield file
        except MlmaError:
            raise
        except Exception as error:  # of a disk, or of a header that nobody foresaw
            why = " ".join(str(error).split()) or type(error).__name__
            raise MlmaError(f"{name}: cannot be read ({why})") from error
