"""Check command lines before any work: no empty names, no outputs that are inputs."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from espnet_mlma.errors import MlmaError

STDIN = "-"
# Suffixes of the files that are read from an input folder: a model's or a data folder's.
_PARTS = frozenset(
    {"", ".bin", ".gguf", ".model", ".npz", ".pt", ".pth", ".safetensors", ".scp", ".yaml", ".yml"}
)


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose `type=Path` refuses the empty name, which pathlib takes for `.`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register("type", Path, named_path)


def first_line(documentation: str | None) -> str:
    """Return the first line of a module's documentation, to describe its program."""
    return (documentation or "").partition("\n")[0]


def named_path(text: str) -> Path:
    """Convert a name to a path.

    Raises:
        argparse.ArgumentTypeError: the name is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; give a file or folder")
    return Path(text)


def check_outputs(
    arguments: argparse.Namespace, *outputs: str, inputs: Iterable[str | Path | None] = ()
) -> None:
    """Check that no output of a command line is one of its inputs.

    Args:
        arguments: parsed.
        outputs: names of the options with outputs; the paths of all others are inputs.
        inputs: more inputs.

    Raises:
        MlmaError: an output is an input.
    """
    values = vars(arguments)
    others = [path for name in values.keys() - set(outputs) for path in _paths(values[name])]
    written = [path for name in outputs for path in _paths(values.get(name))]
    refuse_inputs(written, [*others, *inputs])


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[str | Path | None]) -> None:
    """Check that no output is an input, also under another name: `./`, links, hard links.

    Args:
        outputs: files, or folders that are replaced or filled.
        inputs: files, and folders of models or tables; `-` is the standard input, None is ignored.

    Raises:
        MlmaError: an output is an input.
    """
    there: dict[object, str | Path] = {}
    for path in inputs:
        for part in () if path is None else (path, *_parts(path)):
            there |= {identity: part for identity in _identities(part)}
    for output in outputs:
        found = next((there[one] for one in _identities(output) if one in there), None)
        if found is not None:
            name = "the standard input" if str(found) == STDIN else found
            which = "what is read" if str(found) == str(output) else f"{name}, which is read"
            raise MlmaError(f"{output}: writing it would replace {which}; name another place")


def refuse_to_replace(folder: Path, inputs: Iterable[Path]) -> None:
    """Check that a folder to replace is no input and holds none.

    Args:
        folder: will be replaced.
        inputs: files and folders.

    Raises:
        MlmaError: the folder is or holds an input.
    """
    inputs = list(inputs)
    refuse_inputs([folder], inputs)
    place = Path(os.path.realpath(folder))
    for path in inputs:
        if place in Path(os.path.realpath(path)).parents:
            raise MlmaError(
                f"{folder}: replacing it would remove {path}, which is read; name another place"
            )


def _parts(folder: str | Path) -> list[Path]:
    """Return the files of a model or of tables in a folder; none if it is no folder."""
    try:
        files = list(os.scandir(folder))
    except OSError:
        return []
    return [Path(file) for file in files if file.is_file() and Path(file).suffix in _PARTS]


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _paths(part)


def _identities(path: str | Path) -> list[object]:
    """Return the path's target, and the inode if it is a file or folder."""
    is_stdin = str(path) == STDIN
    try:
        status = os.fstat(0) if is_stdin else os.stat(path)
    except (OSError, ValueError):
        return [] if is_stdin else [os.path.realpath(path)]
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return []
    inode = (status.st_dev, status.st_ino)
    return [inode] if is_stdin else [inode, os.path.realpath(path)]
