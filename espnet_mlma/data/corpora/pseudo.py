"""Pseudo-labels: what `mlma data label` wrote about unlabelled audio.

Its hours are those that you label. The licence is that of the audio. A manifest names its audio by
paths below the labelled folder:

    <root>/<lang>.jsonl, or <root>/*.jsonl with a `language` in each row
    <root>/audio/    the labelled folder, or a link to it

Each row has `id`, `file`, `start`, `end` (seconds), `text`, `confidence` (0 to 1), `language` and
`model`. A recording is its own speaker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.joined import filtered, read_json_lines
from espnet_mlma.data.corpora.tsv import require
from espnet_mlma.data.coverage import Labelled, MissingAudio
from espnet_mlma.data.utterance import (
    Drop,
    Utterance,
    name_problem,
    path_problem,
    speaker_id,
    table_key,
    utterance_id,
)
from espnet_mlma.data.where import Where
from espnet_mlma.errors import MlmaError

TAG = "ps"
HOME = "`mlma data label`"
FIELDS: Mapping[str, type] = {"confidence": float, "language": str, "model": str}
_NUMBERS = ("start", "end", "confidence")


def prepare(
    root: Path, lang: str, split: str, *, where: Mapping[str, Any] | None = None
) -> Iterator[Utterance | Drop]:
    """Read the pseudo-labels in one language.

    Args:
        root: the folder with the manifests and `audio`.
        lang: language code.
        split: `train`.
        where: conditions on the fields in `FIELDS`, such as `min_confidence`.

    Raises:
        MlmaError: another split, a manifest or the audio is missing, or a manifest cannot be read.
    """
    if split != "train":
        raise MlmaError(f"pseudo-labels: unknown split '{split}'; they have only train")
    conditions = Where.checked(where or {}, FIELDS, "pseudo")
    audio = require(root / "audio", "pseudo-labels", HOME)
    own = root / f"{lang}.jsonl"
    manifests = [own] if own.exists() else sorted(root.glob("*.jsonl"))
    if not manifests:
        require(own, "pseudo-labels", HOME)
    seen: set[int] = set()
    there: dict[str, bool] = {}
    for manifest in manifests:
        for found in read_json_lines(manifest):
            if isinstance(found, Drop):
                yield found
                continue
            place, row = found
            if manifest != own and row.get("language") is None:
                yield Drop(place, "no_language", f"{place}: no 'language'; name it {own.name}")
                continue
            if manifest != own and row["language"] != lang:
                continue
            yield filtered(conditions, row, "", place) or _utterance(
                audio, row, place, lang, seen, there
            )


def _utterance(
    folder: Path,
    row: Mapping[str, Any],
    place: str,
    lang: str,
    seen: set[int],
    there: dict[str, bool],
) -> Utterance | Drop:
    name, text, key = row.get("file"), row.get("text"), row.get("id")
    if not (isinstance(name, str) and isinstance(text, str) and isinstance(key, str)):
        return Drop(place, "bad_row", f"{place}: no 'id', 'file' or 'text'")
    if problem := path_problem(key) if key.strip() else "the id is empty":
        return Drop(place, "bad_row", f"{place}: {problem}")
    speaker = speaker_id(TAG, lang, name)
    id_ = utterance_id(speaker, key)
    if problem := name_problem(name):
        return Drop(id_, "unsafe_name", f"{place}: {problem}", speaker)
    values = [row.get(number) for number in _NUMBERS]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return Drop(id_, "bad_row", f"{place}: {', '.join(_NUMBERS)} are not numbers", speaker)
    start, end = float(row["start"]), float(row["end"])
    if not 0 <= start < end:
        return Drop(id_, "bad_span", f"{place}: {start}-{end} s", speaker)
    if hash(id_) in seen:
        return Drop(id_, "duplicate_id", f"{place}: the id occurs before", speaker)
    seen.add(hash(id_))
    if not text.strip():
        return Drop(id_, "empty_text", f"{place}: no text", speaker)
    path = folder / name
    if name not in there:  # rows of a recording follow each other
        there.clear()
        there[name] = path.is_file()
    if not there[name]:
        detail = f"{place}: no file {path}"
        return MissingAudio(
            id_, "no_audio", detail, speaker, lang=lang, seconds=end - start, source="pseudo"
        )
    recording = f"{TAG}_{lang}_{table_key(name)}"
    return Labelled(
        id_, AudioFile(path), text, speaker, lang, start, end, recording, end - start, "pseudo"
    )
