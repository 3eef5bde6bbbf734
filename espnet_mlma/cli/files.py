"""The sounds that a command line names, and the files that are written for them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from espnet_mlma.cli.parser import UsageError
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import write

STDIN = Path("-")
# As decode/formats.py has them; to ask it would import PyTorch for a --help.
FORMATS = {
    "txt": ".txt",
    "json": ".json",
    "srt": ".srt",
    "vtt": ".vtt",
    "ctm": ".ctm",
    "tsv": ".tsv",
    "textgrid": ".TextGrid",
}
# What is taken from a folder; a file that is named is tried whatever its suffix.
SOUND_SUFFIXES = (
    ".aac",
    ".ac3",
    ".aif",
    ".aiff",
    ".amr",
    ".au",
    ".avi",
    ".caf",
    ".flac",
    ".m4a",
    ".mka",
) + (".mkv", ".mov", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".weba", ".webm", ".wma")


class Sound(NamedTuple):
    """A sound file, or `STDIN`, and the folder it has below the one that was named, if one was."""

    path: Path
    below: Path = Path()


def find_sounds(named: Iterable[Path]) -> tuple[list[Sound], dict[Path, str]]:
    """Files as they are named, and those below folders, sorted by path.

    Args:
        named: files, folders, or `STDIN`.

    Returns:
        The sounds, and what is wrong with a file or folder that gives none.
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
    """Whether what lies in a folder is to be recognised; `._talk.mp3` is what a Mac leaves."""
    return file.suffix.lower() in SOUND_SUFFIXES and file.name[0] != "." and file.is_file()


def plan_outputs(
    sounds: Iterable[Sound], formats: Iterable[str], folder: Path | None
) -> list[tuple[Path, dict[str, Path]]]:
    """For each sound the file to write of each format.

    Args:
        sounds: `STDIN` is written as if it were `stdin` in the current folder.
        formats: keys of `FORMATS`.
        folder: where to write all, in the folders they come from; None: each beside its sound.

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
                    "recognise them apart with different -o"
                )
            # What lies beside a sound may be anybody's, a reference for one.
            if folder is None and file.exists():
                raise UsageError(
                    f"{file} is there already; name a folder with -o, where files are replaced"
                )
            writers[file] = sound
        planned.append((sound, files))
    return planned


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        MlmaError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MlmaError(f"cannot make {folder}: {error.strerror}; choose another with -o") from None


def print_or_write(contents: str, output: Path | None) -> None:
    """Put what a command made into a file, and say so; without one print it."""
    if output is None:
        print(contents, end="")
    else:
        write(output, contents)
        print(f"wrote {output}")
