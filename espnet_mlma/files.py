"""Write files and folders whole or not at all; read text and YAML that people wrote."""

from __future__ import annotations

import codecs
import gzip
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from espnet_mlma import claims
from espnet_mlma.errors import MlmaError

# Files of folders that are taken for sound; a file that is named may have any suffix. Not in
# `audio/`, whose import takes longer than --help.
SOUND_SUFFIXES = frozenset(
    {".aac", ".ac3", ".aif", ".aiff", ".amr", ".au", ".avi", ".caf", ".flac", ".m4a", ".mka"}
    | {".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".weba", ".webm", ".wma"}
)
_YAML_VALUES = 10_000_000
# Ten times faster where PyYAML has libyaml.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WRITERS = 100  # processes that may write one output at once, each to its own temporary place
_HEAD = 2**16  # bytes that are searched for line ends
# Byte order marks of other encodings.
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; if no error occurs, it replaces the file at a path.

    Each process has its own temporary file; the last to end wins. A link stays, and its target is
    replaced. A device or a pipe is written directly.

    Args:
        path: the place; its folder is made.

    Raises:
        MlmaError: it is a folder, or the disk is full or not writable; the old file stays.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, false where permission is denied
        raise MlmaError(f"cannot write {path}: a folder; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        try:
            yield path
        except OSError as error:
            raise _cannot_write(path, error) from None
        return
    path = _target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _own_place(path) as new:
            os.truncate(new, 0)  # a killed process may have written it
            yield new
            _sync(new)
            os.replace(new, path)
    except OSError as error:
        raise _cannot_write(path, error) from None
    except UnicodeEncodeError as error:  # a file name in the text is not UTF-8
        name = ascii(error.object[max(error.start - 40, 0) : error.end + 40])
        raise MlmaError(f"cannot write {path}: {name} is not UTF-8; rename it") from None


def write(path: Path, contents: str) -> None:
    """Write a text whole or not at all, in UTF-8; make its folder.

    Raises:
        MlmaError: it cannot be written.
    """
    with whole(path) as new:
        # A file name that is not UTF-8 must not stop the report that names it.
        new.write_text(contents, encoding="utf-8", errors="backslashreplace", newline="\n")


def read_text(path: Path, remedy: str) -> str:
    """Read a text in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        remedy: what to do if it cannot be read, for the error.

    Raises:
        MlmaError: it cannot be read, or has another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MlmaError(f"{path.absolute()}: {error.strerror}; {remedy}") from None
    return _decoded(path, data, 1)


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text in UTF-8, without line ends and byte order mark.

    Lines end in LF, CR LF or, in a file without LF, CR; no other character ends a line. A file
    whose name ends in `.gz` is decompressed.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read.
        MlmaError: it has another encoding.
    """
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        head = file.peek(_HEAD)
        only_cr = b"\r" in head and b"\n" not in head
        lines = file.read().removesuffix(b"\r").split(b"\r") if only_cr else file
        for number, line in enumerate(lines, 1):
            yield _decoded(path, line, number).rstrip("\r\n")


def other_encoding(data: bytes) -> str | None:
    """Return the encoding if a text begins with the byte order mark of UTF-16 or UTF-32."""
    return next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), None)


def _decoded(path: Path, data: bytes, first_line: int) -> str:
    if first_line == 1:
        if encoding := other_encoding(data):
            raise MlmaError(f"{path}: text in {encoding}; save it as UTF-8")
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"{path}:{first_line + data.count(b'\n', 0, error.start)}"
        byte = f"0x{data[error.start]:02x}"
        raise MlmaError(f"{place}: byte {byte} is not UTF-8; save the file as UTF-8") from None


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Read the mapping in a YAML file; an empty file is an empty mapping.

    Args:
        path: the file, in UTF-8.
        remedy: what to do if it is no mapping, for the error.

    Raises:
        MlmaError: it cannot be read, is no mapping, or expands to too many values by aliases.
    """
    text = read_text(path, remedy)
    try:
        contents = yaml.load(text, _YAML_LOADER)
    except Exception as error:  # PyYAML raises others too, such as ValueError for a wrong date
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MlmaError(f"{path}: not a readable YAML file ({reason}); {remedy}") from None
    if not isinstance(contents, dict | None):
        raise MlmaError(f"{path}: a {type(contents).__name__}, not a mapping; {remedy}")
    if _expanded(contents, {}) > _YAML_VALUES:
        raise MlmaError(f"{path}: aliases expand to more than {_YAML_VALUES} values; {remedy}")
    return contents or {}


def _expanded(value: object, sizes: dict[int, int]) -> int:
    """Count the values in a value; aliases count each time, because printing writes them out."""
    if not isinstance(value, list | tuple | dict):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = _YAML_VALUES  # a value that contains itself is endless
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_expanded(part, sizes) for part in inner)
    return sizes[id(value)]


def replace_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a new folder and replace the old one by it.

    Each process fills its own temporary folder; the last to end wins.

    Args:
        folder: the place; a link stays, and its target is replaced.
        fill: writes the contents into the folder that it gets.

    Raises:
        MlmaError: the disk is full or not writable; the old folder stays.
    """
    folder = _target(folder)
    if folder.is_file():
        raise MlmaError(f"cannot write {folder}: a file; move it away or name a folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _swap(None, folder)  # repair the swap of a killed process
        with _own_place(folder, is_folder=True) as new:
            for left in new.iterdir():  # by a killed process
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            fill(new)
            for file in new.iterdir():
                if file.is_file():
                    _sync(file)
            _swap(new, folder)
    except OSError as error:
        raise _cannot_write(folder, error) from None


def _swap(new: Path | None, folder: Path) -> None:
    """Replace the old folder by the new one; without a new one, repair an interrupted swap."""
    old = claims.beside(folder, "old")
    if new is None and not old.exists():
        return
    lock = claims.beside(folder, "swap")
    descriptor = claims.open_locked(lock, wait=True)
    try:
        if old.exists() and folder.exists():  # killed before the old folder was removed
            shutil.rmtree(old)
        elif old.exists():  # killed before the new folder was in place
            old.rename(folder)
        if new is not None:
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
            _remove(old)
    finally:
        _remove(lock)
        os.close(descriptor)


@contextmanager
def _own_place(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """Make a temporary file or folder beside a path; remove it at the end if it still exists.

    It is locked while in use; one without a lock was left by a killed process and is used again.
    The name has the host, because locks of folders do not work across NFS.
    """
    host = socket.gethostname()[:64]
    for number in range(_WRITERS):
        new = claims.beside(path, f"new.{host}" + (f".{number}" if number else ""))
        try:
            descriptor = claims.open_locked(new, folder=is_folder)
        except BlockingIOError:
            continue
        break
    else:
        raise MlmaError(f"cannot write {path}: {_WRITERS} processes write it already; end some")
    made = os.fstat(descriptor)
    try:
        yield new
    finally:
        # It was renamed, unless something failed.
        if new.exists() and os.path.samestat(made, new.stat()):
            _remove(new)
        os.close(descriptor)


def _target(path: Path) -> Path:
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def _sync(file: Path) -> None:
    """Flush a file to the disk, so that it is not empty after a power cut."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a file or folder; print a note if that fails."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        print(f"note: cannot remove {path}: {error.strerror}; remove it by hand", file=sys.stderr)


def _cannot_write(path: Path, error: OSError) -> MlmaError:
    reason = error.strerror or error
    return MlmaError(f"cannot write {path}: {reason}; make room or choose another place")
