"""A data folder of Kaldi or ESPnet: `wav.scp`, `text`, `utt2spk`, `segments`, `utt2lang`.

Values of `wav.scp` that are commands (`... |`) are never run: their utterances are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.curate.formats.row import Row, bad_row, numbered_lines, seconds
from espnet_mlma.data.utterance import Drop
from espnet_mlma.errors import MlmaError


def matches(source: Path) -> bool:
    """Say whether a folder has Kaldi's tables."""
    return (source / "wav.scp").is_file() and (source / "text").is_file()


def rows(source: Path) -> Iterator[Row | Drop]:
    """Read the utterances of `text`.

    Raises:
        MlmaError: a table is missing, cannot be read, or has a duplicate key.
    """
    sound = _table(source / "wav.scp")
    speakers, langs, spans = (
        _table(source / name) if (source / name).is_file() else None
        for name in ("utt2spk", "utt2lang", "segments")
    )
    for place, line in numbered_lines(source / "text"):
        key, text = _split(line)
        recording, start, end = key, None, None
        if spans is not None:
            fields = spans.get(key, "").split()
            start, end = (seconds(field) for field in (fields[1:3] if len(fields) == 3 else "  "))
            if start is None or (end is None and fields[2] != "-1"):  # -1: to the end of the file
                yield Drop(key, "bad_span", f"{place}: no valid line in segments")
                continue
            recording = fields[0]
        value = sound.get(recording)
        if value is None:
            yield bad_row(place, f"{recording[:80]!r} is not in wav.scp")
        elif value.endswith("|") or value.startswith("|"):
            yield Drop(key, "command", f"{place}: wav.scp has a command; write the audio to a file")
        else:
            yield Row(
                key, value, text, place, start, end, (speakers or {}).get(key, ""),
                (langs or {}).get(key, ""),
            )  # fmt: skip


def _split(line: str) -> tuple[str, str]:
    key, *rest = line.split(None, 1)
    return key, rest[0].rstrip() if rest else ""


def _table(path: Path) -> dict[str, str]:
    table: dict[str, str] = {}
    for place, line in numbered_lines(path):
        key, value = _split(line)
        if key in table:
            raise MlmaError(f"{place}: duplicate key '{key}'; remove one")
        table[key] = value
    return table
