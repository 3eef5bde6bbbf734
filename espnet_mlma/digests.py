"""Digest the inputs of a model or a result, to see later whether they have changed."""

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
        raise MlmaError(f"{path}: {error.strerror}; give a readable file") from None


def of_value(value: object) -> str:
    """Digest a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def of_sounds(scp: Path) -> str:
    """Digest a `wav.scp` by its ids, the offsets in archives, and the sizes of sound files.

    No sound is read: a different clip has a different compressed size, which changes the offsets
    and the size of its archive. Names of folders are ignored, so that a recipe may be moved.

    Args:
        scp: its relative paths count from the current folder, or from a folder above `scp`.

    Raises:
        MlmaError: the table is missing or damaged.
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
    """Return the bytes of a sound file; None: it is missing, or a command instead of a file."""
    try:
        found = file if file.is_file() else datadir.find_relative(scp, file)
        return found.stat().st_size if found else None
    except (OSError, ValueError):
        return None
