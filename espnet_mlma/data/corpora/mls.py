"""Multilingual LibriSpeech: audiobooks of LibriVox in eight languages.

Hours of training speech: de 1967, nl 1554, fr 1077, es 918, it 247 (en 44660, not used here);
5 to 14 h each of dev and test. 16 kHz, FLAC or, in the smaller edition, Opus; lower-case text.
CC BY 4.0. Pratap et al., "MLS: a large-scale multilingual dataset for speech research",
Interspeech 2020.

    <root>/mls_<language>[_opus]/<split>/transcripts.txt
    <root>/mls_<language>[_opus]/<split>/audio/<speaker>/<book>/<speaker>_<book>_<number>.{flac,opus}

or as Parquet files of the hub (`hub.py`), which are read if `mls_<language>` does not exist:

    <root>/<language>/{train,dev,test}-*.parquet

Utterance ids are the same in all layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.hub import find_split, read_rows
from espnet_mlma.data.corpora.tsv import checked, read_lines, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.text.language import LANGUAGE_TABLE, LANGUAGES

TAG = "mls"
HOME = "https://www.openslr.org/94"
HUB = "https://huggingface.co/datasets/facebook/multilingual_librispeech"


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of MLS in one language; if several editions exist, FLAC, Opus or Parquet.

    Args:
        root: the folder with `mls_<language>`, `mls_<language>_opus` or Parquet files.
        lang: language code.
        split: `train`, `dev` or `test`.

    Raises:
        MlmaError: the split is missing, or its transcripts are damaged.
    """
    if lang not in LANGUAGES:
        raise MlmaError(f"MLS: unknown language '{lang}'; choose one of {' '.join(LANGUAGES)}")
    language = LANGUAGE_TABLE[lang].name.lower()
    flac = root / f"mls_{language}"
    opus = flac.with_name(f"{flac.name}_opus")
    if not (flac.is_dir() or opus.is_dir()):
        files = find_split(root, language, split, "MLS", HUB)
        if files is not None:
            return _hub(files, lang)
    return _published(flac, opus, lang, split)


def _published(flac: Path, opus: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    edition, suffix = (opus, "opus") if opus.is_dir() and not flac.is_dir() else (flac, "flac")
    transcripts = require(edition / split / "transcripts.txt", "MLS", HOME)
    for row in read_lines(transcripts, 2, "\t"):
        if isinstance(row, Drop):
            yield row
            continue
        name, text = row
        reader, _, rest = name.partition("_")
        file = f"{reader}/{rest.partition('_')[0]}/{name}.{suffix}"
        audio = AudioFile(transcripts.parent / "audio" / file)
        found = _utterance(name, audio, text, lang, transcripts)
        yield found if isinstance(found, Drop) else checked(found, file, transcripts)


def _hub(files: list[Path], lang: str) -> Iterator[Utterance | Drop]:
    columns = ("id", "transcript")
    for found in read_rows(files, columns, lambda row: row.text("id"), ("audio_duration",)):
        if isinstance(found, Drop):
            yield found
            continue
        name, row = found
        seconds = row.positive("audio_duration")
        yield _utterance(name, row.audio, row.text("transcript"), lang, row.audio.path, seconds)


def _utterance(
    name: str, audio: AudioFile, text: str, lang: str, table: Path, seconds: float | None = None
) -> Utterance | Drop:
    """Make an utterance from its name, or a drop if the name is invalid."""
    reader, _, rest = name.partition("_")
    speaker = speaker_id(TAG, lang, reader)
    id_ = utterance_id(speaker, rest)
    if name.count("_") != 2:
        problem = f"{table}: '{name}' is not <speaker>_<book>_<number>"
        return Drop(id_, "bad_row", problem, speaker)
    return Utterance(id_, audio, text, speaker, lang, seconds=seconds)
