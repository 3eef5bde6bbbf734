"""VoxPopuli: speeches in the European Parliament, transcribed.

Hours of training speech: en 522, de 264, fr 206, es 152, it 78, nl 46; a few hours each of dev and
test. CC0. Wang et al., "VoxPopuli: a large-scale multilingual speech corpus for representation
learning, semi-supervised learning and interpretation", ACL 2021.

As downloaded, with whole sessions and the spans of their utterances:

    <root>/raw_audios/original/<year>/<session>_original.ogg
    <root>/transcribed_data/<lang>/asr_<lang>.tsv.gz

or as cut by the corpus's own script, which is preferred if it exists:

    <root>/transcribed_data/<lang>/<year>/<session>-<id>.ogg
    <root>/transcribed_data/<lang>/asr_{train,dev,test}.tsv

or as Parquet files of the hub (`hub.py`), which are read if `transcribed_data/<lang>` does not
exist:

    <root>/<lang>/{train,validation,test}/*.parquet          (branch refs/convert/parquet)

The text is the normalised one, in which numbers are words. An utterance of several voiced pieces
(column `vad`) spans from the first to the last; the corpus's own script removes the pauses.
The hub has the cut clips. Utterance ids are the same in all layouts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.hub import find_split, read_rows
from espnet_mlma.data.corpora.tsv import checked, read_table, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, table_key, utterance_id

TAG = "vp"
HOME = "https://github.com/facebookresearch/voxpopuli"
HUB = "https://huggingface.co/datasets/facebook/voxpopuli"
_SESSION_COLUMNS = ("session_id", "id_", "normed_text", "speaker_id", "split", "vad")
_SESSION = re.compile(r".+?(?=-\d{8}-)")  # of a name by the script; ids begin with a date
_HUB_SESSION = re.compile(r"(.+?)[-_](?=\d{8}-)")  # the hub joins session and id by `_`
# `[(1.5, 2.0), (3.0, 4.5)]`, also with square brackets alone.
_PIECE = re.compile(r"[(\[]([^()\[\],]+),([^()\[\],]+)[)\]]")
_PIECES = re.compile(rf"\s*\[\s*({_PIECE.pattern}\s*(?:,\s*)?)+\]\s*")
_CUT_COLUMNS = ("id", "normalized_text", "speaker_id", "split")
_HUB_COLUMNS = ("audio_id", "normalized_text", "speaker_id")


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of the transcribed part of VoxPopuli in one language.

    Args:
        root: the folder with `transcribed_data` and, unless it is cut, `raw_audios`; or the one
            with Parquet files.
        lang: language code.
        split: `train`, `dev` or `test`.

    Raises:
        MlmaError: the split is missing, or its table is damaged.
    """
    folder = root / "transcribed_data" / lang
    cut = folder / f"asr_{split}.tsv"
    if cut.exists():
        return _cut(cut, lang)
    if not folder.exists():
        files = find_split(root, lang, split, "VoxPopuli", HUB)
        if files is not None:
            return _hub(files, lang)
    table = require(folder / f"asr_{lang}.tsv.gz", "VoxPopuli", HOME)
    sessions = require(root / "raw_audios" / "original", "VoxPopuli", HOME)
    return _spans(table, sessions, lang, split)


def _cut(table: Path, lang: str) -> Iterator[Utterance | Drop]:
    for row in read_table(table, _CUT_COLUMNS, key=["id"]):
        if isinstance(row, Drop):
            yield row
            continue
        name = row["id"]
        session = _SESSION.match(name)
        speaker = _speaker(row["speaker_id"], session[0] if session else name, lang)
        file = f"{name[:4]}/{name}.ogg"
        audio, text = AudioFile(table.parent / file), row["normalized_text"]
        yield checked(
            Utterance(utterance_id(speaker, name), audio, text, speaker, lang), file, table
        )


def _hub(files: list[Path], lang: str) -> Iterator[Utterance | Drop]:
    for found in read_rows(files, _HUB_COLUMNS, lambda row: row.text("audio_id")):
        if isinstance(found, Drop):
            yield found
            continue
        name, row = found
        session = _HUB_SESSION.match(name)
        if session:
            name = f"{session[1]}-{name[session.end() :]}"
        speaker = _speaker(row.text("speaker_id"), session[1] if session else name, lang)
        id_ = utterance_id(speaker, name)
        yield Utterance(id_, row.audio, row.text("normalized_text"), speaker, lang)


def _spans(table: Path, sessions: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    for row in read_table(table, _SESSION_COLUMNS, key=["session_id", "id_"], delimiter="|"):
        if isinstance(row, Drop):
            yield row
            continue
        if row["split"] != split:
            continue
        session = row["session_id"]
        name = f"{session}-{row['id_']}"
        speaker = _speaker(row["speaker_id"], session, lang)
        id_, span, file = utterance_id(speaker, name), _span(row["vad"]), f"{session[:4]}/{session}"
        if span is None:
            problem = f"{table}: '{name}' has no valid spans in column 'vad': {row['vad'][:40]}"
            yield Drop(id_, "bad_span", problem, speaker)
            continue
        utterance = Utterance(
            id=id_,
            audio=AudioFile(sessions / f"{file}_original.ogg"),
            text=row["normed_text"],
            speaker=speaker,
            lang=lang,
            start=span[0],
            end=span[1],
            recording=f"{TAG}_{lang}_{table_key(session)}",
        )
        yield checked(utterance, f"{file}_original.ogg", table)


def _span(vad: str) -> tuple[float, float] | None:
    """Return start and end in seconds of all pieces together; None: the column is invalid."""
    if not _PIECES.fullmatch(vad):
        return None
    try:
        pieces = [(float(start), float(end)) for start, end in _PIECE.findall(vad)]
    except ValueError:
        return None
    start, end = pieces[0][0], pieces[-1][1]
    return (start, end) if 0 <= start < end < math.inf else None


def _speaker(name: str, session: str, lang: str) -> str:
    """Make the speaker id; an unknown speaker is named after the session."""
    return speaker_id(TAG, lang, session if name in ("", "None") else name)
