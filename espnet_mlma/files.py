"""Files and folders that appear whole or not at all, and YAML that is what it should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from espnet_mlma.errors import MlmaError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write in the place of another; when the context ends well, it takes that place.

    A link stays, and what it points at is replaced. Into a device or a pipe is written as it is.

    Args:
        path: the place; its folder is made.

    Raises:
        MlmaError: it is a folder, or the disk is full or not writable; the old file is then
            untouched.
    """
    if os.path.isdir(path):  # of a place that may not be looked at, these say no
        raise MlmaError(f"cannot write {path}: a folder; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        try:
            yield path
        except OSError as error:
            raise _cannot_write(path, error) from None
        return
    path = Path(os.path.realpath(path)) if os.path.islink(path) else path
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield new
        os.replace(new, path)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            new.unlink()


def write(path: Path, contents: str) -> None:
    """Write a text whole or not at all, in UTF-8; makes its folder.

    Raises:
        MlmaError: it cannot be written.
    """
    with whole(path) as new:
        new.write_text(contents, encoding="utf-8", newline="\n")


def read_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file holds an empty one.

    Args:
        path: the file, in UTF-8.
        remedy: what to do where it is none, for the error.

    Raises:
        MlmaError: it cannot be read, or holds something else.
    """
    try:
        contents = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MlmaError(f"{path.absolute()}: {error.strerror}; {remedy}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise MlmaError(f"{path}: not a readable YAML file ({reason}); {remedy}") from None
    if not isinstance(contents, dict | None):
        raise MlmaError(f"{path}: holds a {type(contents).__name__}, no mapping; {remedy}")
    return contents or {}


def replace_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a new folder and put it in the place of the old one.

    Args:
        folder: the place.
        fill: writes the contents into the folder that it is given.

    Raises:
        MlmaError: the disk is full or not writable; the old folder is then untouched.
    """
    new = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    try:
        _put_back(old, folder)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        fill(new)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    finally:
        _put_back(old, folder)
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    """What was moved aside for a new folder that never came."""
    if old.exists() and not folder.exists():
        old.rename(folder)


def _cannot_write(path: Path, error: OSError) -> MlmaError:
    reason = error.strerror or error
    return MlmaError(f"cannot write {path}: {reason}; make room or choose another place")
