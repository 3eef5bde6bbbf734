"""LibriSpeech: English audiobooks read by volunteers of LibriVox.

961 h of training speech in three parts (train-clean-100, train-clean-360, train-other-500) and
about 5 h each of dev-clean, dev-other, test-clean and test-other. 16 kHz FLAC, upper-case text
without punctuation. CC BY 4.0. Panayotov et al., "LibriSpeech: an ASR corpus based on public domain
audio books", ICASSP 2015.

    <root>/<split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt
    <root>/<split>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import checked, read_lines, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError

TAG = "ls"
HOME = "https://www.openslr.org/12"


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one part of LibriSpeech.

    Args:
        root: the folder `LibriSpeech`.
        lang: `en`.
        split: a part's name, such as `train-clean-100`.

    Raises:
        MlmaError: the part is missing, or a transcript file is damaged.
    """
    if lang != "en":
        raise MlmaError(f"LibriSpeech: it has no language '{lang}', only en")
    part = require(root / split, "LibriSpeech", HOME)
    # macOS adds files `._*` to copies.
    transcripts = sorted(t for t in part.glob("*/*/*.trans.txt") if not t.name.startswith("."))
    if not transcripts:
        raise MlmaError(f"LibriSpeech: no *.trans.txt under {part.absolute()}; unpack it again")
    for transcript in transcripts:
        for row in read_lines(transcript, 2, " "):
            if isinstance(row, Drop):
                yield row
                continue
            name, text = row
            reader, _, rest = name.partition("-")
            speaker = speaker_id(TAG, lang, reader)
            audio = AudioFile(transcript.parent / f"{name}.flac")
            utterance = Utterance(utterance_id(speaker, rest), audio, text, speaker, lang)
            yield checked(utterance, f"{name}.flac", transcript)
