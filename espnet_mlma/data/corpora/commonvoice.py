"""Common Voice: sentences read by volunteers in their browsers.

Release 20.0 (December 2024), hours of the official train split: en 1774, de 947, fr 829, es 499,
it 249, nl 46. 48 or 32 kHz MP3, cased and punctuated text. CC0. Ardila et al., "Common Voice: a
massively-multilingual speech corpus", LREC 2020.

    <root>/cv-corpus-20.0-2024-12-06/<lang>/{train,dev,test}.tsv
    <root>/cv-corpus-20.0-2024-12-06/<lang>/clips/*.mp3

Columns are found by name: releases add columns in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import checked, read_table, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError

TAG = "cv"
HOME = "https://commonvoice.mozilla.org/datasets"
_COLUMNS = ("client_id", "path", "sentence")
_CLIENT_ID_CHARS = 32  # of 128; enough to be unique


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one official split of Common Voice in one language.

    Args:
        root: a release `cv-corpus-*`, or a folder with exactly one.
        lang: language code.
        split: `train`, `dev` or `test`.

    Raises:
        MlmaError: the split is missing, there are several releases, or the table is damaged.
    """
    folder = _release(root, lang) / lang
    table = require(folder / f"{split}.tsv", "Common Voice", HOME)
    for row in read_table(table, _COLUMNS, key=["path"]):
        if isinstance(row, Drop):
            yield row
            continue
        speaker = speaker_id(TAG, lang, row["client_id"][:_CLIENT_ID_CHARS])
        id_ = utterance_id(speaker, Path(row["path"]).stem.rpartition("_")[2])
        audio = AudioFile(folder / "clips" / row["path"])
        utterance = Utterance(id_, audio, row["sentence"], speaker, lang)
        yield checked(utterance, row["path"], table)


def _release(root: Path, lang: str) -> Path:
    if (root / lang).is_dir():
        return root
    # The downloaded archives may be there too.
    releases = sorted(folder for folder in root.glob("cv-corpus-*") if folder.is_dir())
    if len(releases) > 1:
        names = ", ".join(release.name for release in releases)
        raise MlmaError(
            f"Common Voice: several releases in {root.absolute()} ({names}); keep one, or name "
            f"it with --root commonvoice={releases[0].absolute()}"
        )
    return releases[0] if releases else root / "cv-corpus-20.0-2024-12-06"
