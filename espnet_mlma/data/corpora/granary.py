"""Granary: labels of VoxPopuli, YODAS and YouTube-Commons in 25 languages, without audio.

643,000 h; Granary-v2 has 48 languages and the same layout. CC BY 4.0, the labels of YODAS CC BY
3.0. Koluguri et al., "Granary: speech recognition and translation dataset in 25 European
languages", Interspeech 2025. A manifest of NeMo has one JSON object on each line:

    <root>/<lang>/{voxpopuli,yodas,ytc}/*.jsonl

`joined.py` has the places of the audio. Fields that are read: `utt_id`, `text`, `duration`,
`audio_filepath`, `original_source_id` (the session or video), `offset`. The first five were seen in
programs that read Granary. `offset` is NeMo's own field. Not verified, because no manifest was at
hand: whether a row has `offset`, the form of `utt_id` of each source, and the names of Granary-v2's
quality fields (`confidence`, `cer` and `good` in `FIELDS`). A row whose span cannot be told is
dropped as `bad_span`. A session is its own speaker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet_mlma.data.corpora.joined import Joiner, Label, filtered, read_json_lines
from espnet_mlma.data.corpora.tsv import require
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.where import Where
from espnet_mlma.errors import MlmaError

TAG = "gr"
HOME = "https://huggingface.co/datasets/nvidia/Granary"
FIELDS: Mapping[str, type] = {
    "duration": float,
    "confidence": float,
    "cer": float,
    "license": str,
    "source_lang": str,
    "dataset_source": str,
    "good": bool,
    "hall_repeated_ngrams": bool,
    "hall_long_word": bool,
    "hall_frequent_single_word": bool,
}
# Split -> folder of the audio, licence of the labels.
SOURCES = {
    "voxpopuli": ("voxpopuli", "cc-by-4.0"),
    "yodas": ("yodas", "cc-by-3.0"),
    "ytc": ("youtube_commons", "cc-by-4.0"),
}
_LANG_FIELDS = ("source_lang", "lang")


def prepare(
    root: Path, lang: str, split: str, *, where: Mapping[str, Any] | None = None
) -> Iterator[Utterance | Drop]:
    """Read the labels of one source in one language and join them to audio.

    Args:
        root: the folder with `<lang>/<source>/*.jsonl`.
        lang: language code; rows of another language are dropped.
        split: `voxpopuli`, `yodas` or `ytc`.
        where: conditions on the fields in `FIELDS`.

    Raises:
        MlmaError: the source is unknown, its labels or the folder of its audio are missing, or a
            manifest cannot be read.
    """
    if split not in SOURCES:
        raise MlmaError(f"Granary: unknown source '{split}'; choose one of {' '.join(SOURCES)}")
    conditions = Where.checked(where or {}, FIELDS, "granary")
    folder = require(root / lang / split, "Granary", HOME)
    manifests = sorted(folder.glob("*.jsonl"))
    if not manifests:
        require(folder / "*.jsonl", "Granary", HOME)
    source, licence = SOURCES[split]
    joiner = Joiner(root, TAG, source, lang, f"granary {split}")
    for manifest in manifests:
        for found in read_json_lines(manifest):
            if isinstance(found, Drop):
                yield found
                continue
            place, row = found
            yield _utterance(joiner, conditions, {"license": licence, **row}, place, lang)


def _utterance(
    joiner: Joiner, where: Where, row: Mapping[str, Any], place: str, lang: str
) -> Utterance | Drop:
    file, text = row.get("audio_filepath"), row.get("text")
    id_ = row.get("utt_id") or (Path(file).stem if isinstance(file, str) else None)
    if not isinstance(id_, str) or not isinstance(text, str):
        return Drop(place, "bad_row", f"{place}: no 'utt_id' or no 'text'")
    other = next((row[name] for name in _LANG_FIELDS if row.get(name, lang) != lang), None)
    if other is not None:
        return Drop(place, "other_language", f"{place}: {str(other)[:40]!r}")
    drop = filtered(where, row, "", place)
    if drop:
        return drop
    times = {}
    for name in ("offset", "duration"):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return Drop(place, "bad_row", f"{place}: '{name}' is not a number")
        times[name] = value
    recording = row.get("original_source_id")
    label = Label(
        id=id_,
        text=text,
        file=file if isinstance(file, str) else None,
        recording=recording if isinstance(recording, str) and recording else None,
        offset=times["offset"],
        seconds=times["duration"],
    )
    return joiner.join(label, place)
