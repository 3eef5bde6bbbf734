"""A folder of Hugging Face `datasets` ("audiofolder"): `metadata.csv` or `metadata.jsonl`.

`file_name` is the audio; `transcription`, `text` or `sentence` the transcript; `speaker`,
`speaker_id` or `client_id`, and `lang`, `language` or `locale` are read if they are there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from espnet_mlma.curate.formats.row import Row, bad_row, json_lines, numbered_lines, string
from espnet_mlma.data.utterance import Drop
from espnet_mlma.errors import MlmaError

_NAMES = ("metadata.csv", "metadata.jsonl")
_TEXTS = ("transcription", "text", "sentence")
_SPEAKERS = ("speaker", "speaker_id", "client_id")
_LANGUAGES = ("lang", "language", "locale")


def matches(source: Path) -> bool:
    """Say whether a folder has metadata."""
    return any((source / name).is_file() for name in _NAMES)


def rows(source: Path) -> Iterator[Row | Drop]:
    """Read the metadata of a folder.

    Raises:
        MlmaError: there is none, it cannot be read, or has no column of file names or texts.
    """
    table = next((source / name for name in _NAMES if (source / name).is_file()), None)
    if table is None:
        raise MlmaError(f"{source}: no metadata.csv or metadata.jsonl; export it as audiofolder")
    for place, entry in json_lines(table) if table.suffix == ".jsonl" else _csv(table):
        if isinstance(entry, Drop):
            yield entry
            continue
        path, text = string(entry.get("file_name")), _first(entry, _TEXTS)
        if not path or text is None:
            yield bad_row(place, "no file_name, or none of " + ", ".join(_TEXTS))
            continue
        speaker, lang = (_first(entry, names) or "" for names in (_SPEAKERS, _LANGUAGES))
        yield Row(path, path, text, place, speaker=speaker, lang=lang)


def _first(entry: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((string(entry[name]) for name in names if name in entry), None)


def _csv(table: Path) -> Iterator[tuple[str, dict[str, Any] | Drop]]:
    place = str(table)

    def lines() -> Iterator[str]:
        nonlocal place
        for where, line in numbered_lines(table):
            place = where
            yield f"{line}\n"

    reader = csv.reader(lines())
    header = next(reader, [])
    if "file_name" not in header:
        raise MlmaError(f"{table}:1: column 'file_name' is missing; check the file")
    try:
        for fields in reader:
            if len(fields) == len(header):
                yield place, dict(zip(header, fields, strict=True))
            else:
                problem = f"{len(fields)} columns, but line 1 has {len(header)}"
                yield place, bad_row(place, problem)
    except csv.Error as error:
        raise MlmaError(f"{place}: not CSV ({error}); check the file") from None
