"""Kaldi-style data folders as the stages read and write them: tables of `<key> <value>` lines."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from espnet_mlma import files
from espnet_mlma.errors import MlmaError

_OTHER_SPEED = re.compile(r"^sp[\d.]+-")
# Tables that have one line per utterance and that every stage hands on.
PER_UTTERANCE = ("text", "utt2spk", "utt2lang", "utt2dataset", "utt2category")


def read(path: Path, made_by: str) -> dict[str, str]:
    """Read a table: a key, blanks or a tab, and the value; a key alone has the empty value.

    Args:
        path: the table, in UTF-8 with or without a byte order mark.
        made_by: the stage that writes it, for the error.

    Raises:
        MlmaError: the file is missing or unreadable, a line is empty, or a key occurs twice.
    """
    table: dict[str, str] = {}
    try:
        for number, line in enumerate(files.read_lines(path), 1):
            key, *value = line.split(maxsplit=1) or [""]
            if not key:
                raise MlmaError(f"{path}:{number}: an empty line; take it out")
            if "\0" in line:
                raise MlmaError(f"{path}:{number}: a NUL character; run {made_by} again")
            if key in table:
                raise MlmaError(f"{path}:{number}: {key} is there twice; run {made_by} again")
            table[key] = value[0] if value else ""
    except FileNotFoundError:
        raise MlmaError(f"{path.absolute()}: no such file; run {made_by} first") from None
    except OSError as error:
        reason = error.strerror or error
        raise MlmaError(f"{path}: not a readable table ({reason}); run {made_by} again") from None
    return table


def read_for(path: Path, ids: Iterable[str], made_by: str) -> dict[str, str]:
    """Read what a table has about a choice of keys, in the order given.

    Args:
        path: the table.
        ids: the keys.
        made_by: the stage that writes it, for the error.

    Raises:
        MlmaError: see `read`; or it has nothing about a key.
    """
    table = read(path, made_by)
    chosen = {}
    for id_ in ids:
        if id_ not in table:
            raise MlmaError(f"{path}: nothing about {id_}; run {made_by} again")
        chosen[id_] = table[id_]
    return chosen


def read_alike(folder: Path, names: Iterable[str], made_by: str) -> dict[str, dict[str, str]]:
    """Read tables of a data folder that have to be about the same keys.

    Args:
        folder: the data folder.
        names: of the tables.
        made_by: the stage that writes them, for the error.

    Returns:
        The tables by name.

    Raises:
        MlmaError: see `read`; or a table is empty, or has nothing about a key of another one.
    """
    tables = {name: read(folder / name, made_by) for name in names}
    keys = dict.fromkeys(key for table in tables.values() for key in table)
    for name, table in tables.items():
        missing = next((key for key in keys if key not in table), None)
        if missing or not table:
            what = f"nothing about {missing}" if missing else "empty"
            raise MlmaError(f"{folder / name}: {what}; run {made_by} again")
    return tables


def numbers(
    path: Path, table: Mapping[str, str], kind: Callable[[str], float], made_by: str
) -> dict[str, float]:
    """Convert the values of a table to numbers above 0.

    Args:
        path: the table, for the error.
        table: what was read from it.
        kind: `int` or `float`.
        made_by: the stage that writes it, for the error.

    Raises:
        MlmaError: a value is no such number.
    """
    found = {}
    for key, value in table.items():
        try:
            found[key] = kind(value)
        except ValueError:
            found[key] = 0
        if not 0 < found[key] < math.inf:
            raise row_error(path, key, f"'{value}' is not a number above 0; run {made_by} again")
    return found


def row_error(path: Path, key: str, problem: str) -> MlmaError:
    """Make an error about the row that has a key, with its line in the table."""
    lines = enumerate(files.read_lines(path), 1)
    number = next((number for number, line in lines if line.split(maxsplit=1)[:1] == [key]), 1)
    return MlmaError(f"{path}:{number}: {problem}")


def write(path: Path, rows: Iterable[tuple[str, object]]) -> None:
    """Write a table whole or not at all.

    Raises:
        MlmaError: the disk is full or not writable.
    """
    with files.whole(path) as new, open(new, "w", encoding="utf-8") as file:
        file.writelines(f"{key} {value}".rstrip() + "\n" for key, value in rows)


def write_utterance_tables(source: Path, target: Path, ids: Collection[str], made_by: str) -> None:
    """Copy the tables about a choice of utterances, in the order given, and `spk2utt` to match.

    Args:
        source: data folder with all of `PER_UTTERANCE`.
        target: folder that gets the tables.
        ids: which utterances, in C order.
        made_by: the stage that made `source`, for errors.

    Raises:
        MlmaError: a table is missing or says nothing about an utterance.
    """
    for name in PER_UTTERANCE:
        table = read_for(source / name, ids, made_by)
        write(target / name, table.items())
        if name == "utt2spk":
            write(target / "spk2utt", spk2utt(table))


def training_folders(config: dict[str, Any]) -> list[Path]:
    """The data folders that a model was trained on, as the recipe saw them."""
    rows = config.get("train_data_path_and_name_and_type") or ()
    return list(dict.fromkeys(Path(path).parent for path, *_ in rows))


def training_tables(place: Path, config: dict[str, Any], name: str) -> list[Path]:
    """The files of a name in the training set's folders, as far as those are still there.

    Args:
        place: the model; training wrote paths relative to a folder above it.
        config: a config.yaml that training wrote.
        name: such as `utt2lang`.
    """
    found = (seen_from(place, folder / name) for folder in training_folders(config))
    return [file for file in found if file is not None]


def seen_from(place: Path, relative: Path) -> Path | None:
    """A file that training named relative to a folder above a place; None: there is none.

    Links are looked at where they lie, and where they point.
    """
    tried = (parent / relative for parent in folders_above(place))
    return next((file for file in tried if file.is_file()), None)


def folders_above(place: Path) -> list[Path]:
    """The folders above a place as it is named, then those above what its links point at."""
    return list(dict.fromkeys((*place.absolute().parents, *place.resolve().parents)))


def without_speed(id_: str) -> str:
    """The id of the utterance that this one is a copy of at another speed, made by stage 2."""
    return _OTHER_SPEED.sub("", id_)


def spk2utt(utt2spk: Mapping[str, str]) -> list[tuple[str, str]]:
    """The lines of `spk2utt` in C order."""
    of_speaker: dict[str, list[str]] = defaultdict(list)
    for utterance, speaker in utt2spk.items():
        of_speaker[speaker].append(utterance)
    return [(speaker, " ".join(ids)) for speaker, ids in sorted(of_speaker.items())]


def write_dropped(path: Path, dropped: Iterable[tuple[str, str, str]]) -> None:
    """Write `dropped.tsv`: id, reason and detail of each utterance that was left out.

    Raises:
        MlmaError: the disk is full or not writable.
    """
    # A name that is not UTF-8 may be why it was dropped.
    with files.whole(path) as new, open(new, "w", encoding="utf-8", errors="backslashreplace") as f:
        f.write("id\treason\tdetail\n")
        for row in sorted(dropped):
            f.write("\t".join(" ".join(cell.replace("\0", "\\0").split()) for cell in row) + "\n")
