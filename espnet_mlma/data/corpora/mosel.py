"""MOSEL: Whisper's labels of VoxPopuli's unlabelled part, LibriLight and YouTube-Commons.

441,000 h in 24 languages, without audio. CC BY 4.0. Gaido et al., "MOSEL: 950,000 hours of speech
data for open-source speech foundation model training on EU languages", EMNLP 2024.

    <root>/<lang>/{voxpopuli,ytc,librilight_small,librilight_medium,librilight_large}.tsv

`joined.py` has the places of the audio. Columns that must exist are `id` and `text`. Used if they
exist: `offset` and `duration` (seconds), `lid` (recognised language), and MOSEL's flags
`hall_repeated_ngrams`, `hall_long_word` and `hall_frequent_single_word`, `True` or `False`. The
names of files and columns were seen in the repository and in programs that read them. An id of
VoxPopuli is `<session>_<lang>_<segment>`; its span is in VoxPopuli's own table. Not verified: the
ids of LibriLight, which must be names of files, and the numbers in those of `ytc`, which are not
interpreted. A session is its own speaker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_mlma.data.corpora.joined import Joiner, Label, filtered
from espnet_mlma.data.corpora.tsv import read_table, require
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.where import Where
from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import number_of

TAG = "mo"
HOME = "https://huggingface.co/datasets/FBK-MT/mosel"
FIELDS: Mapping[str, type] = {
    "duration": float,
    "lid": str,
    "license": str,
    "hall_repeated_ngrams": bool,
    "hall_long_word": bool,
    "hall_frequent_single_word": bool,
}
# Split -> folder of the audio.
SOURCES = {
    "voxpopuli": "voxpopuli",
    "ytc": "youtube_commons",
    "librilight_small": "librilight",
    "librilight_medium": "librilight",
    "librilight_large": "librilight",
}


def prepare(
    root: Path, lang: str, split: str, *, where: Mapping[str, Any] | None = None
) -> Iterator[Utterance | Drop]:
    """Read the labels of one source in one language and join them to audio.

    Args:
        root: the folder with `<lang>/<source>.tsv`.
        lang: language code.
        split: a source: `voxpopuli`, `ytc` or `librilight_{small,medium,large}`.
        where: conditions on the fields in `FIELDS`.

    Raises:
        MlmaError: the source is unknown, its table or the folder of its audio is missing, or the
            table is damaged.
    """
    if split not in SOURCES:
        raise MlmaError(f"MOSEL: unknown source '{split}'; choose one of {' '.join(SOURCES)}")
    conditions = Where.checked(where or {}, FIELDS, "mosel")
    table = require(root / lang / f"{split}.tsv", "MOSEL", HOME)
    joiner = Joiner(root, TAG, SOURCES[split], lang, f"mosel {split}")
    for line, row in enumerate(read_table(table, ("id", "text"), key=()), 2):
        place = f"{table.name}:{line}"
        if isinstance(row, Drop):
            yield row
            continue
        drop = filtered(conditions, {"license": "cc-by-4.0", **row}, "", place)
        yield drop or _utterance(joiner, row, place)


def _utterance(joiner: Joiner, row: Mapping[str, str], place: str) -> Utterance | Drop:
    times = {}
    for name in ("offset", "duration"):
        times[name] = number_of(row[name]) if row.get(name) else None
        if row.get(name) and times[name] is None:
            return Drop(place, "bad_row", f"{place}: '{name}' is not a number")
    label = Label(row["id"], row["text"], offset=times["offset"], seconds=times["duration"])
    return joiner.join(label, place)
