"""FLEURS: sentences of Wikipedia read in 102 languages; used for evaluation only.

7.5 to 10.3 h of training speech in each of the six languages, about 1 h of dev and 2 h of test.
16 kHz WAV in tar archives; cased and punctuated text. CC BY 4.0. Conneau et al., "FLEURS: few-shot
learning evaluation of universal representations of speech", SLT 2022.

    <root>/data/<lang_region>/<split>.tsv          (no header)
    <root>/data/<lang_region>/audio/<split>.tar.gz (or unpacked, as <split>/)

or as Parquet files of the hub (`hub.py`), which are read if `<split>.tsv` does not exist:

    <root>/<lang_region>/{train,validation,test}/*.parquet   (branch refs/convert/parquet)
    <root>/parquet-data/<lang_region>/{train,validation,test}-*.parquet

The corpus has no speaker ids, so each clip has its own speaker. Utterance ids are the same in all
layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.hub import HubRow, find_split, read_rows
from espnet_mlma.data.corpora.tsv import checked, read_lines, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.text.language import LANGUAGE_TABLE, LANGUAGES

TAG = "fl"
HOME = "https://huggingface.co/datasets/google/fleurs"
_RATE = 16000  # Hz, of `num_samples`
_FIELDS = 7  # sentence, file, raw transcription, transcription, characters, samples, gender


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of FLEURS in one language.

    Args:
        root: the folder with `data`, or the one with Parquet files.
        lang: language code.
        split: `dev` or `test`; `train` also works, but the recipe never trains on it.

    Raises:
        MlmaError: the split is missing, or its table is damaged.
    """
    if lang not in LANGUAGES:
        raise MlmaError(f"FLEURS: unknown language '{lang}'; choose one of {' '.join(LANGUAGES)}")
    region = LANGUAGE_TABLE[lang].fleurs
    folder = root / "data" / region
    if not (folder / f"{split}.tsv").exists():
        files = find_split(root, region, split, "FLEURS", HOME)
        if files is not None:
            return _hub(files, lang)
    return _published(folder, lang, split)


def _published(folder: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    table = require(folder / f"{split}.tsv", "FLEURS", HOME)
    archive, unpacked = folder / "audio" / f"{split}.tar.gz", folder / "audio" / split
    is_packed = archive.exists() or not unpacked.is_dir()
    if is_packed:
        require(archive, "FLEURS", HOME)
    for row in read_lines(table, _FIELDS, "\t", key=1):
        if isinstance(row, Drop):
            yield row
            continue
        sentence, name, raw, *_ = row
        audio = AudioFile(archive, f"{split}/{name}") if is_packed else AudioFile(unpacked / name)
        yield checked(_utterance(sentence, name, audio, raw, lang), name, table)


def _hub(files: list[Path], lang: str) -> Iterator[Utterance | Drop]:
    for found in read_rows(files, ("id", "raw_transcription"), _name, ("path", "num_samples")):
        if isinstance(found, Drop):
            yield found
            continue
        name, row = found
        samples = row.positive("num_samples")
        seconds = samples / _RATE if samples else None
        yield _utterance(
            row.text("id"), name, row.audio, row.text("raw_transcription"), lang, seconds
        )


def _name(row: HubRow) -> str:
    """Return the file name of the clip, which names its speaker."""
    return row.name or PurePosixPath(row.text("path")).name


def _utterance(
    sentence: str,
    name: str,
    audio: AudioFile,
    text: str,
    lang: str,
    seconds: float | None = None,
) -> Utterance:
    speaker = speaker_id(TAG, lang, Path(name).stem)
    id_ = utterance_id(speaker, sentence)
    return Utterance(id_, audio, text, speaker, lang, seconds=seconds)
