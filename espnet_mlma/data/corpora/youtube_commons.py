"""YouTube-Commons: transcripts of whole videos under Creative Commons, without audio.

Links and transcripts of 443,000 h. CC BY 4.0.

    <root>/*.parquet

`joined.py` has the place of the audio; a file is named `<video_id>`, as downloaders name it.
Columns that must exist: `video_id`, `text`, `transcription_language`. Used if they exist:
`original_language`, `license`, `word_count`, `channel_id` (the speaker). `original_language`,
`transcription_language` and the format were seen in programs that read the corpus; the other names
were not verified, and an error names the columns that a file has. A row is a translation if its two
languages differ, and is dropped. Transcripts have no times, so a video is one utterance, and stage
4 drops those that are longer than its limit. Granary's and MOSEL's `ytc` have spans of videos.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_mlma.audio import parquet
from espnet_mlma.data.corpora.joined import Joiner, Label, filtered
from espnet_mlma.data.corpora.tsv import require
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.where import Where
from espnet_mlma.errors import MlmaError

TAG = "yc"
HOME = "https://huggingface.co/datasets/PleIAs/YouTube-Commons"
FIELDS: Mapping[str, type] = {"license": str, "word_count": float, "channel_id": str}
_COLUMNS = ("video_id", "text", "transcription_language")
_OPTIONAL = ("original_language", *FIELDS)
_ROWS = 1000  # read at once; a transcript can have 100,000 characters


def prepare(
    root: Path, lang: str, split: str, *, where: Mapping[str, Any] | None = None
) -> Iterator[Utterance | Drop]:
    """Read the transcripts in one language and join them to audio.

    Args:
        root: the folder with the parquet files.
        lang: language code; rows of another language are ignored.
        split: `train`.
        where: conditions on the fields in `FIELDS`.

    Raises:
        MlmaError: another split, no files, a file is damaged or lacks a column, or the folder of
            the audio is missing.
    """
    if split != "train":
        raise MlmaError(f"YouTube-Commons: unknown split '{split}'; it has only train")
    conditions = Where.checked(where or {}, FIELDS, "youtube_commons")
    tables = sorted(root.glob("*.parquet"))
    if not tables:
        require(root / "*.parquet", "YouTube-Commons", HOME)
    joiner = Joiner(root, TAG, "youtube_commons", lang, "youtube_commons")
    for table in tables:
        for number, row in enumerate(_rows(table), 1):
            if row["transcription_language"] != lang:
                continue
            place = f"{table.name}:{number}"
            yield _utterance(joiner, conditions, row, place)


def _utterance(
    joiner: Joiner, where: Where, row: Mapping[str, Any], place: str
) -> Utterance | Drop:
    if not isinstance(row["video_id"], str) or not isinstance(row["text"], str):
        return Drop(place, "bad_row", f"{place}: 'video_id' or 'text' is not a text")
    spoken = row.get("original_language") or row["transcription_language"]
    if spoken != row["transcription_language"]:
        return Drop(place, "translation", f"{place}: spoken in {str(spoken)[:40]!r}")
    drop = filtered(where, row, "", place)
    return drop or joiner.join(Label(row["video_id"], row["text"]), place)


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    with parquet.opened(table) as file:
        there = file.schema_arrow.names
        parquet.check_columns(table, there, _COLUMNS)
        columns = [*_COLUMNS, *(name for name in _OPTIONAL if name in there)]
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
            yield from batch.to_pylist()
