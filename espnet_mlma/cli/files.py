"""Find the sounds of a command line; plan the files to write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from espnet_mlma.cli.parser import UsageError
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import SOUND_SUFFIXES, write

STDIN = Path("-")
# A copy of the table in decode/formats.py, whose import would load PyTorch for --help.
FORMATS = {
    "txt": ".txt",
    "json": ".json",
    "srt": ".srt",
    "vtt": ".vtt",
    "ctm": ".ctm",
    "tsv": ".tsv",
    "textgrid": ".TextGrid",
}


class Sound(NamedTuple):
    """A sound file, or `STDIN`, with its subfolder below the folder on the command line."""

    path: Path
    below: Path = Path()


def find_sounds(named: Iterable[Path]) -> tuple[list[Sound], dict[Path, str]]:
    """List sound files, and those below folders sorted by path.

    Args:
        named: files, folders, or `STDIN`.

    Returns:
        The sounds; and files and folders without a sound, each with the reason.
    """
    found, wrong = [], {}
    for path in dict.fromkeys(named):
        if path != STDIN and path.is_dir():
            below = sorted(file for file in path.rglob("*") if is_sound(file))
            found += [Sound(file, file.parent.relative_to(path)) for file in below]
            if not below:
                wrong[path] = "no sound file in or below this folder; name the files"
        elif path == STDIN or os.path.exists(path):
            found.append(Sound(path))
        else:
            wrong[path] = "no such file"
    return found, wrong


def is_sound(file: Path) -> bool:
    """Return whether a file in a folder is a sound; `._talk.mp3` is metadata of macOS."""
    return file.suffix.lower() in SOUND_SUFFIXES and file.name[0] != "." and file.is_file()


def plan_outputs(
    sounds: Iterable[Sound], formats: Iterable[str], folder: Path | None, overwrite: bool = False
) -> list[tuple[Path, dict[str, Path]]]:
    """Choose the file to write for each sound and format.

    Args:
        sounds: `STDIN` gives files named `stdin` in the current folder.
        formats: keys of `FORMATS`.
        folder: gets all files, in the subfolders of the sounds; None: files go beside the sounds.
        overwrite: replace files beside the sounds.

    Raises:
        UsageError: two sounds would write one file, or a file beside a sound would be replaced.
    """
    writers: dict[Path, Path] = {}
    planned = []
    for sound, below in sounds:
        base = Path("stdin") if sound == STDIN else sound
        place = base.parent if folder is None else folder / below
        files = {name: place / (base.stem + FORMATS[name]) for name in formats}
        for file in files.values():
            if file in writers:
                raise UsageError(
                    f"{writers[file]} and {sound} would both write {file}; rename one, or "
                    "run the command once for each, with different --output"
                )
            # A file beside a sound may be somebody's reference.
            if folder is None and not overwrite and file.exists():
                raise UsageError(
                    f"{file} exists already; name a folder with --output, or give --overwrite"
                )
            writers[file] = sound
        planned.append((sound, files))
    return planned


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        MlmaError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MlmaError(
            f"cannot make {folder}: {error.strerror}; choose another --output"
        ) from None


def print_or_write(contents: str, output: Path | None) -> None:
    """Write a command's result to a file and report it; without a file, print the result."""
    if output is None:
        print(contents, end="")
    else:
        write(output, contents)
        print(f"wrote {output}")
