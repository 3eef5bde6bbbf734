"""Multilingual LibriSpeech: audiobooks of LibriVox in eight languages.

Hours of training speech: de 1967, nl 1554, fr 1077, es 918, it 247 (en 44660, not used here);
5 to 14 h each of dev and test. 16 kHz, FLAC or, in the smaller edition, Opus; lower-case text.
CC BY 4.0. Pratap et al., "MLS: a large-scale multilingual dataset for speech research",
Interspeech 2020.

    <root>/mls_<language>[_opus]/<split>/transcripts.txt
    <root>/mls_<language>[_opus]/<split>/audio/<speaker>/<book>/<speaker>_<book>_<number>.{flac,opus}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import checked, read_lines, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.text.language import LANGUAGE_TABLE, LANGUAGES

TAG = "mls"
HOME = "https://www.openslr.org/94"


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of MLS in one language; if both editions exist, the FLAC one.

    Args:
        root: the folder with `mls_<language>` or `mls_<language>_opus`.
        lang: language code.
        split: `train`, `dev` or `test`.

    Raises:
        MlmaError: the split is missing, or its transcripts are damaged.
    """
    if lang not in LANGUAGES:
        raise MlmaError(f"MLS: unknown language '{lang}'; choose one of {' '.join(LANGUAGES)}")
    flac = root / f"mls_{LANGUAGE_TABLE[lang].name.lower()}"
    opus = flac.with_name(f"{flac.name}_opus")
    edition, suffix = (opus, "opus") if opus.is_dir() and not flac.is_dir() else (flac, "flac")
    transcripts = require(edition / split / "transcripts.txt", "MLS", HOME)
    for row in read_lines(transcripts, 2, "\t"):
        if isinstance(row, Drop):
            yield row
            continue
        name, text = row
        reader, _, rest = name.partition("_")
        speaker, book = speaker_id(TAG, lang, reader), rest.partition("_")[0]
        id_ = utterance_id(speaker, rest)
        if name.count("_") != 2:
            problem = f"{transcripts}: '{name}' is not <speaker>_<book>_<number>"
            yield Drop(id_, "bad_row", problem, speaker)
            continue
        file = f"{reader}/{book}/{name}.{suffix}"
        audio = AudioFile(transcripts.parent / "audio" / file)
        yield checked(Utterance(id_, audio, text, speaker, lang), file, transcripts)
