"""Read the reference sentences of talks, with times and translations.

Two formats: a YAML list of segments (`wav`, `offset`, `duration`) with a text file of equally many
lines, as in IWSLT and MuST-C; or the sentence records of `data/records.py` with translations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_lines, read_text
from espnet_mlma.sst.data import shards
from espnet_mlma.sst.score.logs import talk_name

_REMEDY = "name a file that exists"
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # a byte order mark, decoded


@dataclass(frozen=True)
class Reference:
    """Hold a reference sentence of a talk.

    Attributes:
        talk: name of the talk, see `logs.talk_name`.
        start: start in the talk, in seconds.
        duration: duration in seconds.
        text: translation.
        source: transcript; empty if unknown.
    """

    talk: str
    start: float
    duration: float
    text: str
    source: str = ""


def read_segments(segments: Path, texts: Path, sources: Path | None = None) -> list[Reference]:
    """Read a list of segments with their translations.

    Args:
        segments: YAML or JSON list with `wav`, `offset` and `duration` in seconds.
        texts: translations, one line per segment; lines may start with a byte order mark.
        sources: transcripts, one line per segment.

    Raises:
        MlmaError: a file cannot be read, the numbers of lines and segments differ, or a segment is
            malformed; names the segment's number.
    """
    try:
        entries = yaml.load(
            read_text(segments, _REMEDY), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise MlmaError(f"{segments}: not valid YAML ({reason}); fix it") from None
    if not isinstance(entries, list) or not entries:
        raise MlmaError(f"{segments}: needs a list of segments with wav, offset and duration")
    lines = {path: _lines(path, len(entries), segments) for path in (texts, sources) if path}
    references = []
    for number, entry in enumerate(entries):
        where = f"{segments}: segment {number + 1}"
        if not isinstance(entry, dict) or not isinstance(entry.get("wav"), str):
            raise MlmaError(f"{where}: wav is missing; add it")
        start, duration = (_seconds(where, entry, key) for key in ("offset", "duration"))
        source = lines[sources][number] if sources else ""
        talk = talk_name(entry["wav"])
        references.append(_reference(where, talk, start, duration, lines[texts][number], source))
    return references


def read_sentences(path: Path, target: str) -> list[Reference]:
    """Read translated sentence records from a file or its shards.

    Args:
        path: JSON lines written by the stage talks or translate.
        target: language of the translations, ISO 639-1.

    Raises:
        MlmaError: a record is malformed, has no translation, or has another target language.
    """
    references = []
    for sentence in shards.read_sentences(path):
        where = f"{path}: sentence {sentence.id}"
        if sentence.translation is None:
            raise MlmaError(f"{where}: no translation; give the output of stage translate")
        if sentence.target != target:
            raise MlmaError(f"{where}: into {sentence.target}, not {target}; give its --target")
        start, duration = sentence.start, sentence.end - sentence.start
        talk = talk_name(sentence.recording)
        references.append(
            _reference(where, talk, start, duration, sentence.translation, sentence.text)
        )
    if not references:
        raise MlmaError(f"{path}: no sentences; give those of the test set")
    return references


def _reference(
    where: str, talk: str, start: float, duration: float, text: str, source: str
) -> Reference:
    if duration <= 0:
        raise MlmaError(f"{where}: duration is {duration:g} s; it must be above 0")
    return Reference(talk, start, duration, text.strip(), source.strip())


def _seconds(where: str, entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise MlmaError(f"{where}: {key}: {value!r} is not a time in seconds; fix it")
    return float(value)


def _lines(path: Path, count: int, segments: Path) -> list[str]:
    try:
        # Concatenated files can have a byte order mark in the middle.
        lines = [line.lstrip(_MARK) for line in read_lines(path)]
    except OSError as error:
        raise MlmaError(f"{path}: {error.strerror}; {_REMEDY}") from None
    if len(lines) != count:
        raise MlmaError(
            f"{path}: {len(lines)} lines for the {count} segments of {segments}; "
            "give the texts of that list"
        )
    return lines
