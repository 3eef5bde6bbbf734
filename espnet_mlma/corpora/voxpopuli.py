"""VoxPopuli: speeches in the European Parliament, transcribed.

Hours of training speech: en 522, de 264, fr 206, es 152, it 78, nl 46; a few hours each of dev and
test. CC0. Wang et al., "VoxPopuli: a large-scale multilingual speech corpus for representation
learning, semi-supervised learning and interpretation", ACL 2021.

As downloaded, sessions with the spans of their utterances:

    <root>/raw_audios/original/<year>/<session>_original.ogg
    <root>/transcribed_data/<lang>/asr_<lang>.tsv.gz

or as the corpus's own script cuts them, which is taken where it is there:

    <root>/transcribed_data/<lang>/<year>/<session>-<id>.ogg
    <root>/transcribed_data/<lang>/asr_{train,dev,test}.tsv

The text is the normalised one, in which numbers are words. An utterance of several voiced pieces
(column `vad`) spans from the first to the last; the corpus's own script leaves the pauses out.
Utterance ids are the same for both layouts.
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.corpora.tables import read_table, require
from espnet_mlma.corpora.utterance import AudioFile, Utterance, speaker_id
from espnet_mlma.errors import MlmaError

TAG = "vp"
HOME = "https://github.com/facebookresearch/voxpopuli"
_SESSION_COLUMNS = ("session_id", "id_", "normed_text", "speaker_id", "split", "vad")
_SESSION = re.compile(r".+?(?=-\d{8}-)")  # of a name as the script makes it; ids begin with a date
_CUT_COLUMNS = ("id", "normalized_text", "speaker_id", "split")


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance]:
    """Read one split of the transcribed part of VoxPopuli in one language.

    Args:
        root: the folder that holds `transcribed_data` (and `raw_audios`, unless cut).
        lang: language code.
        split: `train`, `dev` or `test`.

    Raises:
        MlmaError: the split is not there, or its table is damaged.
    """
    folder = root / "transcribed_data" / lang
    cut = folder / f"asr_{split}.tsv"
    if cut.exists():
        return _cut(cut, lang)
    table = require(folder / f"asr_{lang}.tsv.gz", "VoxPopuli", HOME)
    sessions = require(root / "raw_audios" / "original", "VoxPopuli", HOME)
    return _spans(table, sessions, lang, split)


def _cut(table: Path, lang: str) -> Iterator[Utterance]:
    for row in read_table(table, _CUT_COLUMNS, key=["id"]):
        name = row["id"]
        session = _SESSION.match(name)
        speaker = _speaker(row["speaker_id"], session[0] if session else name, lang)
        audio = AudioFile(table.parent / name[:4] / f"{name}.ogg")
        yield Utterance(f"{speaker}-{name}", audio, row["normalized_text"], speaker, lang)


def _spans(table: Path, sessions: Path, lang: str, split: str) -> Iterator[Utterance]:
    for row in read_table(table, _SESSION_COLUMNS, key=["session_id", "id_"], delimiter="|"):
        if row["split"] != split:
            continue
        session = row["session_id"]
        name = f"{session}-{row['id_']}"
        speaker = _speaker(row["speaker_id"], session, lang)
        start, end = _span(row["vad"], table, name)
        yield Utterance(
            id=f"{speaker}-{name}",
            audio=AudioFile(sessions / session[:4] / f"{session}_original.ogg"),
            text=row["normed_text"],
            speaker=speaker,
            lang=lang,
            start=start,
            end=end,
            recording=f"{TAG}_{lang}_{session}",
        )


def _span(vad: str, table: Path, name: str) -> tuple[float, float]:
    try:
        pieces = [(float(start), float(end)) for start, end in literal_eval(vad)]
        return pieces[0][0], pieces[-1][1]
    except (ValueError, TypeError, SyntaxError, IndexError):
        raise MlmaError(f"{table}: '{name}' has no spans in column 'vad': {vad[:40]}") from None


def _speaker(name: str, session: str, lang: str) -> str:
    """Speaker of an utterance; where the corpus does not know, one for the session."""
    return speaker_id(TAG, lang, session if name in ("", "None") else name)
