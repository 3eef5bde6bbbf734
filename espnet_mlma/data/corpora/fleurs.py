"""FLEURS: sentences of Wikipedia read in 102 languages; used for evaluation only.

7.5 to 10.3 h of training speech in each of the six languages, about 1 h of dev and 2 h of test.
16 kHz WAV in tar archives; cased and punctuated text. CC BY 4.0. Conneau et al., "FLEURS: few-shot
learning evaluation of universal representations of speech", SLT 2022.

    <root>/data/<lang_region>/<split>.tsv          (no header)
    <root>/data/<lang_region>/audio/<split>.tar.gz (or unpacked, as <split>/)

The corpus has no speaker ids, so each clip has its own speaker.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import checked, read_lines, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.text.language import LANGUAGE_TABLE, LANGUAGES

TAG = "fl"
HOME = "https://huggingface.co/datasets/google/fleurs"
_FIELDS = 7  # sentence, file, raw transcription, transcription, characters, samples, gender


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of FLEURS in one language.

    Args:
        root: the folder with `data`.
        lang: language code.
        split: `dev` or `test`; `train` also works, but the recipe never trains on it.

    Raises:
        MlmaError: the split is missing, or its table is damaged.
    """
    if lang not in LANGUAGES:
        raise MlmaError(f"FLEURS: unknown language '{lang}'; choose one of {' '.join(LANGUAGES)}")
    folder = root / "data" / LANGUAGE_TABLE[lang].fleurs
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
        speaker = speaker_id(TAG, lang, Path(name).stem)
        audio = AudioFile(archive, f"{split}/{name}") if is_packed else AudioFile(unpacked / name)
        id_ = utterance_id(speaker, sentence)
        yield checked(Utterance(id_, audio, raw, speaker, lang), name, table)
