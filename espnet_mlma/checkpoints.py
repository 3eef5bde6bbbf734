"""Write training checkpoints whole, keep the previous one, and check them before use."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from espnet_mlma import claims, files
from espnet_mlma.errors import MlmaError


def previous(path: Path) -> Path:
    """Return where the checkpoint before the newest one lies."""
    return path.with_name(f"{path.name}.prev")


def save(write: Callable[[BinaryIO], object], path: Path, *, keep_previous: bool = False) -> None:
    """Write a file of PyTorch's whole or not at all.

    Args:
        write: writes into its argument with `torch.save`.
        path: the place.
        keep_previous: move the existing file to `previous(path)`.

    Raises:
        MlmaError: the disk is full or not writable; the old file stays.
    """
    try:
        with files.whole(path) as new:
            # An open file, because torch.save stores the name of a path in the checkpoint.
            with open(new, "wb") as file:
                write(file)
            if keep_previous and path.is_file():
                _link(path, previous(path))
    except RuntimeError as error:  # torch.save hides the OSError of a failed write
        failed = error.__context__
        reason = failed.strerror if isinstance(failed, OSError) else error
        raise MlmaError(f"cannot write {path}: {reason}; make room") from None


def read(path: Path) -> Any:
    """Map a checkpoint into memory; None: it is damaged.

    Raises:
        MlmaError: reading it is not permitted.
    """
    import torch  # takes a second

    if path.is_file() and not os.access(path, os.R_OK):
        raise MlmaError(f"{path}: permission denied; make it readable")
    try:
        is_zip = zipfile.is_zipfile(path)  # PyTorch before 1.6 wrote another format
        if is_zip:
            # After a power cut a file of the right length may hold zeros.
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return None
        # After Ctrl-C the zip file is valid, but members are missing.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception:  # a damaged pickle may raise any
        return None


def _link(path: Path, other: Path) -> None:
    """Link a file to another name; move it where the file system has no links."""
    new = claims.beside(other, "new")
    try:
        new.unlink(missing_ok=True)
        os.link(path, new)
    except OSError:
        os.replace(path, other)
    else:
        os.replace(new, other)
