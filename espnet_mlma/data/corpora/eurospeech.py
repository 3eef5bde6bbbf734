"""EuroSpeech: sessions of national parliaments, aligned with their official transcripts.

About 61,000 h of 22 parliaments; of our languages Italian, French, German and British English, no
Spanish or Dutch. Segments of up to about 20 s; cased and punctuated text, which is the official
report and not verbatim. Pfisterer et al., "EuroSpeech: a multilingual speech corpus", NeurIPS 2025.

    <root>/<country>/{train,validation,test}-*.parquet       (as on the hub, `hub.py`)

Column `cer` has the character error rate of the recogniser that aligned a segment, against the
official text, as a fraction of 1. Segments above 0.1 are dropped as `high_cer`. A split such as
`train@0.05` has another limit. The corpus has no speaker ids, so a speaker is named after the
session, column `video_id`.

The licence differs by country, and the hub's page lists the terms of each parliament. As others
report them: Italy CC BY 4.0, the United Kingdom Open Government Licence 3.0, France Licence
Ouverte. For Germany we have found none: read the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.data.corpora.hub import find_split, read_rows
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError

TAG = "euro"  # `eu` is Basque
HOME = "https://huggingface.co/datasets/disco-eth/EuroSpeech"
MAX_CER = 0.1
COUNTRIES = {"it": "italy", "fr": "france", "de": "germany", "en": "uk"}
_COLUMNS = ("key", "human_transcript", "cer", "video_id")


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one split of EuroSpeech in one language.

    Args:
        root: the folder with `italy`, `france`, `germany` and `uk`.
        lang: language code.
        split: `train`, `dev` or `test`, and `@` with the highest `cer` to keep, if it is not 0.1.

    Raises:
        MlmaError: the language or the split is missing, or a file is damaged.
    """
    if lang not in COUNTRIES:
        raise MlmaError(
            f"EuroSpeech: unknown language '{lang}'; choose one of {' '.join(COUNTRIES)}"
        )
    name, _, limit = split.partition("@")
    max_cer = _limit(limit, split)
    files = find_split(root, COUNTRIES[lang], name, "EuroSpeech", HOME)
    if files is None:
        folder = (root / COUNTRIES[lang]).absolute()
        raise MlmaError(f"EuroSpeech: no Parquet files in {folder}; download it from {HOME}")
    return _read(files, lang, max_cer)


def _read(files: list[Path], lang: str, max_cer: float) -> Iterator[Utterance | Drop]:
    for found in read_rows(files, _COLUMNS, lambda row: row.text("key"), ("duration_seconds",)):
        if isinstance(found, Drop):
            yield found
            continue
        name, row = found
        speaker = speaker_id(TAG, lang, row.text("video_id") or name)
        id_, cer = utterance_id(speaker, name), row.number("cer")
        if cer is None or cer > max_cer:
            problem = "column 'cer' is empty" if cer is None else f"cer {cer:.3f} above {max_cer:g}"
            yield row.drop(id_, "high_cer", problem, speaker)
            continue
        seconds = row.positive("duration_seconds")
        yield Utterance(
            id_, row.audio, row.text("human_transcript"), speaker, lang, seconds=seconds
        )


def _limit(text: str, split: str) -> float:
    if not text and not split.endswith("@"):
        return MAX_CER
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit <= 1:
        raise MlmaError(f"EuroSpeech: split '{split}': '{text}' is not a CER from 0 to 1")
    return limit
