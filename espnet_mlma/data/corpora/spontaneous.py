"""Common Voice Spontaneous Speech: volunteers answer questions in their own words.

80 languages in release 5.0 (September 2026), many without splits. Hours of its train, dev and test
splits: en 5.0, 1.8 and 1.6; de, es and fr none. MP3, cased and punctuated text with tags of sounds
in brackets. CC0. From Mozilla Data Collective, one archive per language. Figures and layout:
github.com/common-voice/cv-dataset, datasets/spontaneous-speech.

    <root>/[<folder>/]ss-corpus-<lang>.tsv
    <root>/[<folder>/]audios/*.mp3

Columns are found by name. Rows without a split (`unassigned`: the transcript is not validated), or
without a transcript, are dropped and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.commonvoice import CLIENT_ID_CHARS
from espnet_mlma.data.corpora.tsv import checked, read_table, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import positive_of

TAG = "ss"
HOME = "https://mozilladatacollective.com"
_DOWNLOAD = f"{HOME} (account and accepted terms)"
SPLITS = ("train", "dev", "test")
_COLUMNS = ("client_id", "audio_file", "transcription", "split")
_SOUND_TAG = re.compile(r"\[[^\[\]]*\]")  # such as [laugh]


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of Spontaneous Speech in one language.

    Args:
        root: the unpacked archive, or a folder with one for each language.
        lang: language code.
        split: `train`, `dev` or `test`. Rows without a split are dropped from `train`.

    Raises:
        MlmaError: the table is missing or damaged, or there are several for the language.
    """
    table = _table(root, lang)
    for row in read_table(table, _COLUMNS, key=["audio_file"]):
        if isinstance(row, Drop):
            if split == "train":
                yield row
            continue
        of = row["split"].strip()
        if of != split and (of in SPLITS or split != "train"):
            continue
        name = row["audio_file"]
        speaker = speaker_id(TAG, lang, row["client_id"][:CLIENT_ID_CHARS])
        id_ = utterance_id(speaker, Path(name).stem)
        if of != split:
            problem = f"{table}: split is '{of[:40]}'" if of else f"{table}: has no split"
            yield Drop(id_, "no_split", problem, speaker)
            continue
        text = _SOUND_TAG.sub(" ", row["transcription"])
        audio = AudioFile(table.parent / "audios" / name)
        milliseconds = positive_of(row.get("duration_ms"))
        seconds = None if milliseconds is None else milliseconds / 1000
        yield checked(Utterance(id_, audio, text, speaker, lang, seconds=seconds), name, table)


def _table(root: Path, lang: str) -> Path:
    name = f"ss-corpus-{lang}.tsv"
    found = sorted([*root.glob(name), *root.glob(f"*/{name}"), *root.glob(f"*/*/{name}")])
    if len(found) > 1:
        raise MlmaError(
            f"Spontaneous Speech: several tables for '{lang}' ({', '.join(map(str, found))}); keep "
            "one, or name its folder with --root spontaneous=DIR"
        )
    return found[0] if found else require(root / name, "Spontaneous Speech", _DOWNLOAD)
