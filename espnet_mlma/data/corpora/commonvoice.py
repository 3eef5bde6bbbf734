"""Common Voice: sentences read by volunteers in their browsers, releases 13 to 27 and later.

Hours of the official train split of release 20.0 (December 2024), on which the paper trained: en
1774, de 947, fr 829, es 499, it 249, nl 46. 48 or 32 kHz MP3, cased and punctuated text. CC0.
Ardila et al., "Common Voice: a massively-multilingual speech corpus", LREC 2020. Since October 2025
only from Mozilla Data Collective, one archive per language; `mlma data get` needs an API key.

    <root>/[<archive's name>/]cv-corpus-<release>-<date>/<lang>/{train,dev,test}.tsv
    <root>/[<archive's name>/]cv-corpus-<release>-<date>/<lang>/clips/*.mp3
    <root>/[<archive's name>/]cv-corpus-<release>-<date>/<lang>/clip_durations.tsv

Columns are found by name: releases add and rename columns. Each language may have a release of its
own. The lengths of the clips are those of `clip_durations.tsv` where it has them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import checked, read_table, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_lines

TAG = "cv"
HOME = (
    "https://mozilladatacollective.com (account and accepted terms; `mlma data get commonvoice` "
    "downloads it)"
)
RELEASE = re.compile(r"cv-corpus-(\d+(?:\.\d+)?)\b.*")
DURATIONS = "clip_durations.tsv"
_COLUMNS = ("client_id", "path", "sentence")
_CLIENT_ID_CHARS = 32  # of 128; enough to be unique
_PAPERS = "cv-corpus-20.0-2024-12-06"


def prepare(root: Path, lang: str, split: str) -> Iterator[Utterance | Drop]:
    """Read one official split of Common Voice in one language.

    Args:
        root: a release `cv-corpus-*`, or a folder with releases or unpacked archives.
        lang: language code.
        split: `train`, `dev` or `test`; `test@27.0` if the language lies there in several releases.

    Raises:
        MlmaError: the split is missing, several releases have the language, or a table is damaged.
    """
    split, _, release = split.partition("@")
    folder = find_release(root, lang, release) / lang
    table = require(folder / f"{split}.tsv", "Common Voice", HOME)
    durations = ClipDurations(folder / DURATIONS)
    for row in read_table(table, _COLUMNS, key=["path"]):
        if isinstance(row, Drop):
            yield row
            continue
        speaker = speaker_id(TAG, lang, row["client_id"][:_CLIENT_ID_CHARS])
        id_ = utterance_id(speaker, Path(row["path"]).stem.rpartition("_")[2])
        audio = AudioFile(folder / "clips" / row["path"])
        seconds = durations.of(row["path"])
        utterance = Utterance(id_, audio, row["sentence"], speaker, lang, seconds=seconds)
        yield checked(utterance, row["path"], table)


def find_release(root: Path, lang: str, release: str = "") -> Path:
    """Find the folder of the release that has a language.

    Args:
        root: as for `prepare`.
        lang: language code.
        release: such as `27.0`; empty: the only one.

    Returns:
        A folder `cv-corpus-*`, which may be missing if none has the language.

    Raises:
        MlmaError: several releases have the language, or the release is not there.
    """
    if (root / lang).is_dir():
        return root
    # The downloaded archives may be there too.
    releases = sorted(
        folder
        for pattern in ("cv-corpus-*", "*/cv-corpus-*")
        for folder in root.glob(pattern)
        if folder.is_dir()
    )
    found = [folder for folder in releases if (folder / lang).is_dir()]
    if release:
        named = [folder for folder in found if _number(folder) == _number_of(release)]
        if not named:
            there = ", ".join(_shown(folder) for folder in found) or "none"
            raise MlmaError(
                f"Common Voice: no release {release} with '{lang}' in {root.absolute()} "
                f"(found: {there}); download it from {HOME}"
            )
        found = named
    if len(found) > 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in found)
        raise MlmaError(
            f"Common Voice: several releases in {root.absolute()} have '{lang}' ({names}); keep "
            f"one, or name it in the mixture, such as train@{_shown(found[0])}"
        )
    if releases and not found:
        there = ", ".join(_shown(folder) for folder in releases)
        raise MlmaError(
            f"Common Voice: no release in {root.absolute()} has '{lang}' (found: {there}); "
            f"download it from {HOME}"
        )
    return found[0] if found else root / _PAPERS


class ClipDurations:
    """Look up the lengths of clips in a release's `clip_durations.tsv`.

    A million clips take 12 MB. Values that are not lengths are ignored.

    Args:
        path: columns `clip` and `duration[ms]`; an old release has no such file.

    Raises:
        MlmaError: the table cannot be read.
    """

    def __init__(self, path: Path):
        keys, seconds = bytearray(), []
        for number, line in enumerate(read_lines(path) if path.is_file() else ()):
            name, _, value = line.partition("\t")
            milliseconds = _positive(value)
            if number and milliseconds is not None:
                keys += _digest(name)
                seconds.append(milliseconds / 1000)
        order = np.argsort(found := np.frombuffer(bytes(keys), np.uint64), kind="stable")
        self._keys, self._seconds = found[order], np.array(seconds, np.float32)[order]

    def of(self, name: str) -> float | None:
        """Return the length of a clip in seconds; None: the table does not have it."""
        key = np.frombuffer(_digest(name), np.uint64)[0]
        place = int(np.searchsorted(self._keys, key))
        is_there = place < len(self._keys) and self._keys[place] == key
        return round(float(self._seconds[place]), 3) if is_there else None


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _positive(value: str) -> float | None:
    try:
        number = float(value.partition("\t")[0])
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _shown(folder: Path) -> str:
    found = RELEASE.fullmatch(folder.name)
    return found[1] if found else folder.name


def _number(folder: Path) -> tuple[int, int] | None:
    return _number_of(_shown(folder))


def _number_of(release: str) -> tuple[int, int] | None:
    """Parse a release: 27 and 27.0 are the same."""
    major, _, minor = release.partition(".")
    return (int(major), int(minor or 0)) if (major + minor).isdecimal() else None
