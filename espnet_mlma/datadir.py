"""Kaldi-style data folders as the stages read and write them: tables of `<key> <value>` lines."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from espnet_mlma.errors import MlmaError

_OTHER_SPEED = re.compile(r"^sp[\d.]+-")
# Tables that have one line per utterance and that every stage hands on.
PER_UTTERANCE = ("text", "utt2spk", "utt2lang", "utt2dataset", "utt2category")


def read(path: Path, made_by: str) -> dict[str, str]:
    """Read a table: a key, blanks or a tab, and the value; a key alone has the empty value.

    Args:
        path: the table.
        made_by: the stage that writes it, for the error.

    Raises:
        MlmaError: the file is missing or unreadable, a line is empty, or a key occurs twice.
    """
    table: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    raise MlmaError(f"{path}:{number}: an empty line; take it out")
                key, *value = line.rstrip("\n").split(maxsplit=1)
                if key in table:
                    raise MlmaError(f"{path}:{number}: {key} is there twice; run {made_by} again")
                table[key] = value[0] if value else ""
    except FileNotFoundError:
        raise MlmaError(f"{path.absolute()}: no such file; run {made_by} first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MlmaError(f"{path}: not a readable table ({error}); run {made_by} again") from None
    return table


def write(path: Path, rows: Iterable[tuple[str, object]]) -> None:
    """Write a table whole or not at all.

    Raises:
        OSError: the disk is full or not writable.
    """
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", encoding="utf-8") as file:
        file.writelines(f"{key} {value}".rstrip() + "\n" for key, value in rows)
    os.replace(new, path)


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
        table = read(source / name, made_by)
        missing = next((id_ for id_ in ids if id_ not in table), None)
        if missing:
            raise MlmaError(f"{source / name}: nothing about {missing}; run {made_by} again")
        write(target / name, ((id_, table[id_]) for id_ in ids))
        if name == "utt2spk":
            write(target / "spk2utt", spk2utt({id_: table[id_] for id_ in ids}))


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
    """Write `dropped.tsv`: id, reason and detail of each utterance that was left out."""
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", encoding="utf-8") as file:
        file.write("id\treason\tdetail\n")
        for id_, reason, detail in sorted(dropped):
            file.write(f"{id_}\t{reason}\t{' '.join(detail.split())}\n")
    os.replace(new, path)
