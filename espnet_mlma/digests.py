"""Digests of what a model or a result was made from, to tell later whether that is the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from espnet_mlma.data import tables as datadir
from espnet_mlma.errors import MlmaError

_LENGTH = 16  # hexadecimal digits


def of_file(path: Path) -> str:
    """Digest a file's contents.

    Raises:
        MlmaError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:_LENGTH]
    except OSError as error:
        raise MlmaError(f"{path}: {error.strerror}; name a file that can be read") from None


def of_value(value: object) -> str:
    """Digest a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def of_sounds(scp: Path) -> str:
    """Digest a `wav.scp` by its ids, the offsets in archives, and the sizes of sound files.

    No sound is read: another clip is compressed to another size, which moves the offsets and the
    end of its archive. Folders do not count, so that a recipe may be moved.

    Args:
        scp: relative files in it count from the working folder, or from one above `scp`.

    Raises:
        MlmaError: the table is missing or not whole.
    """
    sizes: dict[str, int | None] = {}
    total = hashlib.sha256()
    for id_, where in datadir.read(scp, "stage 3").items():
        file, _, offset = where.rpartition(":")
        if not offset.isdecimal():
            file, offset = where, ""
        if file not in sizes:
            sizes[file] = _size(Path(file), scp)
        total.update(f"{id_}\t{Path(file).name}\t{offset}\t{sizes[file]}\n".encode())
    return total.hexdigest()[:_LENGTH]


def _size(file: Path, scp: Path) -> int | None:
    """Bytes of a sound file; None: it is not there, or a command that prints the sound."""
    try:
        found = file if file.is_file() else datadir.find_relative(scp, file)
        return found.stat().st_size if found else None
    except (OSError, ValueError):
        return None
