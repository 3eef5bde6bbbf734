"""Common Voice: sentences read by volunteers in their browsers, releases 13 to 27 and later.

Hours of the official train split of release 20.0 (December 2024), on which the paper trained: en
1774, de 947, fr 829, es 499, it 249, nl 46. 48 or 32 kHz MP3, cased and punctuated text. CC0.
Ardila et al., "Common Voice: a massively-multilingual speech corpus", LREC 2020. Since October 2025
only from Mozilla Data Collective, one archive per language; `mlma data get` needs an API key.

    <root>/[<archive's name>/]cv-corpus-<release>-<date>/<lang>/{train,dev,test}.tsv
    <root>/[<archive's name>/]cv-corpus-<release>-<date>/<lang>/clips/*.mp3
    <root>/[<archive's name>/]cv-corpus-<release>-<date>/<lang>/clip_durations.tsv

Columns are found by name: releases add and rename columns. Each language may have a release of its
own. The lengths of the clips are those of `clip_durations.tsv` (since release 16.1) where it has
them.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import checked, is_archive, read_table, require
from espnet_mlma.data.utterance import Drop, Utterance, speaker_id, utterance_id
from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import positive_of

TAG = "cv"
HOME = "https://mozilladatacollective.com"
_DOWNLOAD = f"{HOME} (account and accepted terms; `mlma data get commonvoice` downloads it)"
RELEASE = re.compile(r"cv-corpus-(\d+(?:\.\d+)?)\b.*")
DURATIONS = "clip_durations.tsv"
_COLUMNS = ("client_id", "path", "sentence")
_DURATION_COLUMNS = ("clip", "duration[ms]")
CLIENT_ID_CHARS = 32  # of 128; enough to be unique
_PAPERS = "cv-corpus-20.0-2024-12-06"
_TABLES = 8  # of lengths, kept in memory: the splits of a language share one
_SHOWN_ARCHIVES = 3


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
    table = require(folder / f"{split}.tsv", "Common Voice", _DOWNLOAD)
    durations = _clip_durations(folder / DURATIONS)
    for row in read_table(table, _COLUMNS, key=["path"]):
        if isinstance(row, Drop):
            yield row
            continue
        speaker = speaker_id(TAG, lang, row["client_id"][:CLIENT_ID_CHARS])
        id_ = utterance_id(speaker, Path(row["path"]).stem.rpartition("_")[2])
        audio = AudioFile(folder / "clips" / row["path"])
        if row.get("locale", "") not in ("", lang):
            detail = f"{table}: {row['path']}: locale is '{row['locale'][:40]}'"
            yield Drop(id_, "other_locale", detail, speaker)
            continue
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
    if release and _number_of(release) is None:
        raise MlmaError(f"Common Voice: '{release}' is not a release such as 27.0")
    if (root / lang).is_dir():
        if release and _number(root) != _number_of(release):
            raise MlmaError(f"Common Voice: {root.absolute()} is not release {release}")
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
                f"(found: {there}); {_how_to_get(root)}"
            )
        found = named
    if len(found) > 1:
        names = ", ".join(str(folder.relative_to(root)) for folder in found)
        name_it = (
            "" if release else f", or name it in the mixture, such as train@{_shown(found[0])}"
        )
        raise MlmaError(
            f"Common Voice: several releases in {root.absolute()} have '{lang}' ({names}); keep "
            f"one{name_it}"
        )
    if releases and not found:
        there = ", ".join(_shown(folder) for folder in releases)
        raise MlmaError(
            f"Common Voice: no release in {root.absolute()} has '{lang}' (found: {there}); "
            f"{_how_to_get(root)}"
        )
    return found[0] if found else root / _PAPERS


def _how_to_get(root: Path) -> str:
    """Say how to get a language; name the archives that have no folder of their name."""
    packed = [
        entry.name
        for entry in sorted(root.glob("*"))
        if is_archive(entry) and not (root / entry.name.partition(".tar")[0]).is_dir()
    ]
    names = ", ".join(packed[:_SHOWN_ARCHIVES]) + (", ..." if packed[_SHOWN_ARCHIVES:] else "")
    unpack = f"unpack its archive if it is here ({names}), or " if packed else ""
    return f"{unpack}download it from {_DOWNLOAD}"


class ClipDurations:
    """Look up the lengths of clips in a release's `clip_durations.tsv`.

    A million clips take 16 MB. Rows without a length, and a table that cannot be read, are noted on
    standard output; these clips have no length.

    Args:
        path: columns `clip` and `duration[ms]`; an old release has no such file.
    """

    def __init__(self, path: Path):
        keys, seconds, unusable = bytearray(), array("d"), 0
        try:
            for row in read_table(path, _DURATION_COLUMNS, key=()) if path.is_file() else ():
                value = "" if isinstance(row, Drop) else row[_DURATION_COLUMNS[1]]
                milliseconds = positive_of(value)
                if isinstance(row, Drop) or milliseconds is None:
                    unusable += 1
                    continue
                keys += _digest(row[_DURATION_COLUMNS[0]])
                seconds.append(milliseconds / 1000)
        except MlmaError as error:
            print(f"note: {error}; the clips are measured instead", flush=True)
        if unusable:
            print(f"note: {path}: {unusable} rows have no length; these clips are measured")
        found = np.frombuffer(bytes(keys), np.uint64)
        order = np.argsort(found, kind="stable")
        self._keys, self._seconds = found[order], np.array(seconds)[order]

    def of(self, name: str) -> float | None:
        """Return the length of a clip in seconds; None: the table does not have it."""
        key = np.frombuffer(_digest(name), np.uint64)[0]
        place = int(np.searchsorted(self._keys, key))
        is_there = place < len(self._keys) and self._keys[place] == key
        return float(self._seconds[place]) if is_there else None


def _clip_durations(path: Path) -> ClipDurations:
    status = path.stat() if path.is_file() else None
    return _cached_durations(path, status and (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=_TABLES)
def _cached_durations(path: Path, stamp: tuple[int, int] | None) -> ClipDurations:
    """Read a table of lengths once, as long as it is not modified."""
    return ClipDurations(path)


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _shown(folder: Path) -> str:
    found = RELEASE.fullmatch(folder.name)
    return found[1] if found else folder.name


def _number(folder: Path) -> tuple[int, int] | None:
    return _number_of(_shown(folder))


def _number_of(release: str) -> tuple[int, int] | None:
    """Parse a release: 27 and 27.0 are the same."""
    major, _, minor = release.partition(".")
    return (int(major), int(minor or 0)) if (major + minor).isdecimal() else None
