"""A manifest of NeMo: JSON lines with `audio_filepath`, `duration`, `offset`, `text`, `speaker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.curate.formats.row import Row, bad_row, json_lines, seconds, string
from espnet_mlma.data.utterance import Drop


def matches(source: Path) -> bool:
    """Say whether the first line of a file names an audio file."""
    if not source.is_file() or ".json" not in source.name:
        return False
    first = next(json_lines(source), ("", {}))[1]
    return isinstance(first, Drop) or "audio_filepath" in first


def rows(source: Path) -> Iterator[Row | Drop]:
    """Read a manifest.

    Raises:
        MlmaError: it cannot be read.
    """
    for place, entry in json_lines(source):
        if isinstance(entry, Drop):
            yield entry
            continue
        path, text = (string(entry.get(name)) for name in ("audio_filepath", "text"))
        start, length = seconds(entry.get("offset", 0)), seconds(entry.get("duration"))
        if not path or start is None:
            yield bad_row(place, "no audio_filepath, or an offset that is no time")
            continue
        if "offset" not in entry:
            span = None, None
        elif length:
            span = start, start + length
        else:
            yield bad_row(place, "an offset without duration")
            continue
        key = path if span[0] is None else f"{path}:{start:.3f}"
        speaker, lang = (string(entry.get(name)) for name in ("speaker", "lang"))
        yield Row(key, path, text, place, *span, speaker, lang)
