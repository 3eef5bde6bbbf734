"""A corpus of one's own, of any language, as `mlma data add` lays it out.

<root>/corpus.yaml                  name, languages, source, digests, counts
<root>/<lang>/{train,dev,test}.tsv  id, path, start, end, seconds, speaker, text
<root>/<lang>/alphabet.txt          a letter first on each line; "#" begins a comment
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import read_table
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, table_key, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_text, read_yaml
from espnet_mlma.text import normalise
from espnet_mlma.text.language import LANGUAGES, alphabet

RECORD, ALPHABET = "corpus.yaml", "alphabet.txt"
COLUMNS = ("id", "path", "start", "end", "seconds", "speaker", "text")
SPLITS = ("train", "dev", "test")
# Ids begin with the name up to the first "_".
NAME = re.compile(r"[a-z][a-z0-9]{0,19}")
_REMEDY = "make it with mlma data add"


def languages_of(root: Path, name: str) -> list[str]:
    """Return the languages of a corpus.

    Args:
        root: its folder.
        name: that it must have.

    Raises:
        MlmaError: it is missing, damaged, or has another name.
    """
    record = read_yaml(root / RECORD, _REMEDY)
    if record.get("name") != name:
        raise MlmaError(f"{root / RECORD}: is corpus '{record.get('name')}', not '{name}'; rename")
    langs = record.get("languages")
    if not isinstance(langs, list) or not langs or not all(isinstance(one, str) for one in langs):
        raise MlmaError(f"{root / RECORD}: no languages; {_REMEDY}")
    return langs


def read_alphabet(root: Path, lang: str) -> frozenset[str]:
    """Return the letters of a language: the package's if it knows them, else the corpus's.

    Raises:
        MlmaError: the alphabet cannot be read or is empty.
    """
    if lang in LANGUAGES:
        return alphabet(lang)
    path = root / lang / ALPHABET
    lines = read_text(path, _REMEDY).split("\n")
    letters = {line.split("\t")[0].strip() for line in lines if not line.startswith("#")} - {""}
    if not letters:
        raise MlmaError(f"{path}: no letters; {_REMEDY}")
    return frozenset("".join(letters))


def prepare(root: Path, lang: str, split: str, name: str) -> Iterator[Utterance | Drop]:
    """Read one split of a corpus in one language.

    Args:
        root: its folder.
        lang: language code.
        split: `train`, `dev` or `test`.
        name: of the corpus.

    Raises:
        MlmaError: the split is missing or damaged.
    """
    table, letters = root / lang / f"{split}.tsv", read_alphabet(root, lang) | {"'", " "}
    for row in read_table(table, COLUMNS, ("id",)):
        if isinstance(row, Drop):
            yield row
            continue
        speaker = speaker_id(name, lang, row["speaker"])
        id_ = utterance_id(speaker, row["id"])
        if split != "test" and not letters.issuperset(normalise(row["text"], lang)):
            yield Drop(id_, "out_of_alphabet", row["text"], speaker)
            continue
        try:
            start, end = (float(row[of]) if row[of] else None for of in ("start", "end"))
        except ValueError:
            yield Drop(id_, "bad_span", f"{table}: {row['start']} to {row['end']}", speaker)
            continue
        path = row["path"]
        recording = None if start is None else f"{name}_{lang}_{table_key(path)}"
        audio = AudioFile(root / path)
        yield Utterance(id_, audio, row["text"], speaker, lang, start, end, recording)
