"""Read and write the tables of Kaldi-style data folders: lines of `<key> <value>`."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_mlma import files
from espnet_mlma.errors import MlmaError

_OTHER_SPEED = re.compile(r"^sp[\d.]+-")
# Tables with one line per utterance, which every stage copies.
PER_UTTERANCE = ("text", "utt2spk", "utt2lang", "utt2dataset", "utt2category")


def read(path: Path, made_by: str) -> dict[str, str]:
    """Read a table: on each line a key, white space and a value, which may be empty.

    Args:
        path: the table; UTF-8, with or without a byte order mark.
        made_by: the stage that writes it, for errors.

    Raises:
        MlmaError: the file is missing or unreadable, a line is empty, or a key occurs twice.
    """
    table: dict[str, str] = {}
    for number, (key, value) in enumerate(rows(path, made_by), 1):
        if key in table:
            raise MlmaError(f"{path}:{number}: duplicate key {key}; run {made_by} again")
        table[key] = value
    return table


def rows(path: Path, made_by: str) -> Iterator[tuple[str, str]]:
    """Yield the rows of a table without keeping them: key and value, which may be empty.

    Args:
        path: the table; UTF-8, with or without a byte order mark.
        made_by: the stage that writes it, for errors.

    Raises:
        MlmaError: as in `read`, except that keys may occur twice.
    """
    try:
        for number, line in enumerate(files.read_lines(path), 1):
            key, *value = line.split(maxsplit=1) or [""]
            if not key:
                raise MlmaError(f"{path}:{number}: empty line; remove it")
            if "\0" in line:
                raise MlmaError(f"{path}:{number}: NUL character; run {made_by} again")
            yield key, value[0] if value else ""
    except FileNotFoundError:
        raise MlmaError(f"{path.absolute()}: no such file; run {made_by} first") from None
    except OSError as error:
        reason = error.strerror or error
        raise MlmaError(f"{path}: cannot read the table ({reason}); run {made_by} again") from None


def read_for(path: Path, ids: Iterable[str], made_by: str) -> dict[str, str]:
    """Read the values of the given keys, in their order.

    Args:
        path: the table.
        ids: the keys.
        made_by: the stage that writes it, for errors.

    Raises:
        MlmaError: as in `read`; or the table lacks a key.
    """
    table = read(path, made_by)
    chosen = {}
    for id_ in ids:
        if id_ not in table:
            raise MlmaError(f"{path}: {id_} is missing; run {made_by} again")
        chosen[id_] = table[id_]
    return chosen


def read_alike(folder: Path, names: Iterable[str], made_by: str) -> dict[str, dict[str, str]]:
    """Read tables of a data folder that must have the same keys.

    Args:
        folder: the data folder.
        names: of the tables.
        made_by: the stage that writes them, for errors.

    Returns:
        The tables by name.

    Raises:
        MlmaError: as in `read`; or a table is empty, or lacks a key of another one.
    """
    tables = {name: read(folder / name, made_by) for name in names}
    keys = dict.fromkeys(key for table in tables.values() for key in table)
    for name, table in tables.items():
        missing = next((key for key in keys if key not in table), None)
        if missing or not table:
            what = f"{missing} is missing" if missing else "empty"
            raise MlmaError(f"{folder / name}: {what}; run {made_by} again")
    return tables


def numbers(
    path: Path, table: Mapping[str, str], kind: Callable[[str], float], made_by: str
) -> dict[str, float]:
    """Convert the values of a table to positive numbers.

    Args:
        path: the table, for errors.
        table: its content.
        kind: `int` or `float`.
        made_by: the stage that writes it, for errors.

    Raises:
        MlmaError: a value is not a positive number.
    """
    found = {}
    for key, value in table.items():
        try:
            found[key] = kind(value)
        except ValueError:
            found[key] = 0
        if not 0 < found[key] < math.inf:
            raise row_error(path, key, f"'{value}' is not a positive number; run {made_by} again")
    return found


def row_error(path: Path, key: str, problem: str) -> MlmaError:
    """Make an error about the row with a key, with its line number."""
    lines = enumerate(files.read_lines(path), 1)
    number = next((number for number, line in lines if line.split(maxsplit=1)[:1] == [key]), 1)
    return MlmaError(f"{path}:{number}: {problem}")


def write(path: Path, rows: Iterable[tuple[str, object]]) -> None:
    """Write a table, complete or not at all.

    Raises:
        MlmaError: the disk is full or not writable.
    """
    with files.whole(path) as new, open(new, "w", encoding="utf-8") as file:
        file.writelines(f"{key} {value}".rstrip() + "\n" for key, value in rows)


def write_utterance_tables(source: Path, target: Path, ids: Collection[str], made_by: str) -> None:
    """Copy the tables of the given utterances, and write a `spk2utt` that matches.

    Args:
        source: data folder with the tables `PER_UTTERANCE`.
        target: folder to write to.
        ids: the utterances, in C order.
        made_by: the stage that made `source`, for errors.

    Raises:
        MlmaError: a table is missing or lacks an utterance.
    """
    for name in PER_UTTERANCE:
        table = read_for(source / name, ids, made_by)
        write(target / name, table.items())
        if name == "utt2spk":
            write(target / "spk2utt", spk2utt(table))


def training_folders(config: dict[str, Any]) -> list[Path]:
    """Return the data folders that a model was trained on, relative to the recipe's folder."""
    rows = config.get("train_data_path_and_name_and_type") or ()
    return list(dict.fromkeys(Path(path).parent for path, *_ in rows))


def training_tables(place: Path, config: dict[str, Any], name: str) -> list[Path]:
    """Find the files of a name in the folders of the training set that still exist.

    Args:
        place: path of the model; the paths in `config` are relative to a folder above it.
        config: the config.yaml that training wrote.
        name: of the files, such as `utt2lang`.
    """
    found = (find_relative(place, folder / name) for folder in training_folders(config))
    return [file for file in found if file is not None]


def find_relative(place: Path, relative: Path) -> Path | None:
    """Find a file by its path relative to any folder above a place, or above its link's target."""
    tried = (parent / relative for parent in folders_above(place))
    return next((file for file in tried if file.is_file()), None)


def folders_above(place: Path) -> list[Path]:
    """List the folders above a place as given, then those above it with links resolved."""
    return list(dict.fromkeys((*place.absolute().parents, *place.resolve().parents)))


def without_speed(id_: str) -> str:
    """Remove the prefix that stage 2 puts before the id of a copy at another speed."""
    return _OTHER_SPEED.sub("", id_)


def spk2utt(utt2spk: Mapping[str, str]) -> list[tuple[str, str]]:
    """Make the rows of `spk2utt`, in C order."""
    of_speaker: dict[str, list[str]] = defaultdict(list)
    for utterance, speaker in utt2spk.items():
        of_speaker[speaker].append(utterance)
    return [(speaker, " ".join(ids)) for speaker, ids in sorted(of_speaker.items())]


def write_dropped(path: Path, dropped: Iterable[tuple[str, str, str]]) -> None:
    """Write `dropped.tsv`: id, reason and detail of each dropped utterance.

    Raises:
        MlmaError: the disk is full or not writable.
    """
    # The reason may be a name that is not UTF-8.
    with files.whole(path) as new, open(new, "w", encoding="utf-8", errors="backslashreplace") as f:
        f.write("id\treason\tdetail\n")
        for row in sorted(dropped):
            f.write("\t".join(" ".join(cell.replace("\0", "\\0").split()) for cell in row) + "\n")


def list_counts(counts: Mapping[str, int]) -> str:
    """Format counts by reason in one line, or `none`."""
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items())) or "none"
