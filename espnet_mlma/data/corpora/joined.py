"""Join labels that are published without audio to the audio on disk.

The folder of a source's audio is `<root>/audio/<source>`, which may be a link, or beside the root,
`<root>/../<source>`:

    voxpopuli/raw_audios/<lang>/<year>/<session>_<lang>.ogg       unlabelled sessions
    voxpopuli/raw_audios/original/<year>/<session>_original.ogg   sessions of the transcribed part
    voxpopuli/unlabelled_data/<lang>/<year>/<session>_<lang>_<segment>.ogg   cut by its script
    voxpopuli/unlabelled_data/unlabelled_v2.tsv.gz                spans of the segments
    yodas/data/<lang><number>/audio/<shard>.tar.gz, or unpacked
    youtube_commons/, librilight/: files named by video or chapter, in any subfolders

Files are found by name without suffix. They are listed once; nothing is opened but the archives.
"""

from __future__ import annotations

import math
import os
import re
import tarfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from espnet_mlma import files
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora.tsv import json_rows, read_table
from espnet_mlma.data.coverage import Labelled, MissingAudio
from espnet_mlma.data.utterance import (
    Drop,
    Utterance,
    name_problem,
    path_problem,
    speaker_id,
    table_key,
    utterance_id,
)
from espnet_mlma.data.where import Where
from espnet_mlma.errors import MlmaError

_ARCHIVES = (".tar.gz", ".tgz")
_SPANS = "unlabelled_data/unlabelled_v2.tsv.gz"
_SPAN_COLUMNS = ("event_id", "segment_no", "start", "end")
_MOST_SEGMENTS = 100_000  # of a session; a day in segments of a second
# `<video>-<number>-<start>-<end>` of YODAS, in hundredths of a second.
_YODAS_ID = re.compile(r"(.+)-\d{5}-(\d{8})-(\d{8})")
_SEGMENT_ID = re.compile(r"(.+)_(\d{1,6})")  # `<session>_<lang>_<segment>`
_LONGEST_SHOWN = 100


@dataclass(frozen=True)
class Label:
    """A row of labels.

    Attributes:
        id: of the utterance.
        text: the transcript.
        file: name of the audio file that `offset` counts in; None: the row has none.
        recording: id of the session or video; None: it is in `id`.
        offset: seconds; None: the row has none.
        seconds: length; None: the row has none.
    """

    id: str
    text: str
    file: str | None = None
    recording: str | None = None
    offset: float | None = None
    seconds: float | None = None


class AudioIndex:
    """The audio files and members of archives in folders, by name without suffix."""

    def __init__(self, folders: Iterable[Path]):
        # A tuple of a shared folder and the rest of the name takes a third of a path's memory.
        self._places: dict[str, tuple[str, str | None, str]] = {}
        for folder in folders:
            self._scan(str(folder))

    def __len__(self) -> int:
        return len(self._places)

    def find(self, name: str) -> AudioFile | None:
        """Return the file with a name without suffix; None: there is none."""
        place = self._places.get(name)
        if place is None:
            return None
        folder, inner, suffix = place
        if inner is None:
            return AudioFile(Path(folder, name + suffix))
        return AudioFile(Path(folder), f"{inner}{name}{suffix}")

    def _scan(self, top: str) -> None:
        todo, seen = [top], set()
        while todo:
            folder = todo.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name, suffix = os.path.splitext(entry.name)
                    if entry.name.endswith(_ARCHIVES):
                        self._add_members(entry.path)
                    elif suffix.lower() in files.SOUND_SUFFIXES:
                        self._places.setdefault(name, (folder, None, suffix))
                    elif entry.is_dir():
                        todo.append(entry.path)

    def _add_members(self, archive: str) -> None:
        status = os.stat(archive)
        for member in _members(archive, status.st_size, status.st_mtime_ns):
            folder, slash, name = member.rpartition("/")
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in files.SOUND_SUFFIXES and name_problem(member) is None:
                self._places.setdefault(stem, (archive, folder + slash, suffix))


@lru_cache(maxsize=4096)  # stage 1 reads a split twice
def _members(archive: str, _size: int, _changed: int) -> tuple[str, ...]:
    try:
        with tarfile.open(archive, "r|gz") as tar:
            return tuple(entry.name.removeprefix("./") for entry in tar if entry.isfile())
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise MlmaError(
            f"{archive}: not a whole tar archive ({error}); download it again"
        ) from None


class Segments:
    """Spans of VoxPopuli's unlabelled segments in one language."""

    def __init__(self, table: Path, lang: str):
        self._spans: dict[str, array[float]] = {}
        if not table.is_file():
            return
        for row in read_table(table, _SPAN_COLUMNS, key=()):
            if isinstance(row, Drop) or not row["event_id"].endswith(f"_{lang}"):
                continue
            try:
                number, start, end = int(row["segment_no"]), float(row["start"]), float(row["end"])
            except ValueError:
                continue
            if not 0 <= number < _MOST_SEGMENTS:
                continue
            spans = self._spans.setdefault(row["event_id"], array("d"))
            spans.extend([math.nan] * (2 * number + 2 - len(spans)))
            spans[2 * number], spans[2 * number + 1] = start, end

    def find(self, id_: str) -> tuple[str, float, float] | None:
        """Return session, start and end of a segment, in seconds; None: it is unknown."""
        parts = _SEGMENT_ID.fullmatch(id_)
        spans = self._spans.get(parts[1]) if parts else None
        if parts is None or spans is None or 2 * int(parts[2]) + 1 >= len(spans):
            return None
        start, end = spans[2 * int(parts[2])], spans[2 * int(parts[2]) + 1]
        return (parts[1], start, end) if 0 <= start < end < math.inf else None


class Joiner:
    """Join the labels of one source and language to audio.

    Args:
        root: folder of the labels.
        tag: of the corpus.
        source: name of the source's folder of audio.
        lang: language code.
        name: of the source in reports.
    """

    def __init__(self, root: Path, tag: str, source: str, lang: str, name: str):
        folder = audio_folder(root, source)
        self._index = AudioIndex(_parts(folder, lang))
        self._segments = Segments(folder / _SPANS, lang)
        self._tag, self._lang, self._name = tag, lang, name
        self._seen: set[int] = set()  # hashes take half the memory of the ids

    def join(self, label: Label, place: str) -> Utterance | Drop:
        """Return the utterance of a label, or why there is none.

        Args:
            label: the row.
            place: `<table>:<line>`, for what is dropped.
        """
        problem = path_problem(label.id) if label.id.strip() else "the id is empty"
        if problem:
            return Drop(place, "bad_row", f"{place}: {problem}")
        recording, start, end = self._span(label)
        speaker = speaker_id(self._tag, self._lang, recording)
        id_ = utterance_id(speaker, label.id)
        problem = _problem(label)
        if problem:
            return Drop(id_, problem[0], f"{place}: {problem[1]}", speaker)
        if hash(label.id) in self._seen:
            return Drop(id_, "duplicate_id", f"{place}: the id occurs before", speaker)
        self._seen.add(hash(label.id))
        seconds = label.seconds
        if seconds is None and start is not None and end is not None:
            seconds = end - start
        audio = self._named(label)
        if audio is not None:
            stem = Path(label.file or "").stem
            is_span = label.offset is not None and _stem(audio) == stem
            start, end = (start, end) if is_span else (None, None)
        else:
            audio = self._session(recording)
            if audio is None:
                detail = f"{place}: no audio of '{_shown(recording)}'"
                return MissingAudio(
                    id_,
                    "no_audio",
                    detail,
                    speaker,
                    lang=self._lang,
                    seconds=seconds,
                    source=self._name,
                )
            if start is None or end is None:
                detail = f"{place}: no offset and duration of '{_shown(label.id)}' in {audio}"
                return Drop(id_, "bad_span", detail, speaker)
        key = None if start is None else f"{self._tag}_{self._lang}_{table_key(_stem(audio))}"
        return Labelled(
            id_, audio, label.text, speaker, self._lang, start, end, key, seconds, self._name
        )

    def _span(self, label: Label) -> tuple[str, float | None, float | None]:
        """Return recording, start and end of a label."""
        recording = label.recording or label.id
        if label.offset is not None and label.seconds is not None:
            if label.recording is None and (parts := _SEGMENT_ID.fullmatch(label.id)):
                recording = parts[1]
            return recording, label.offset, label.offset + label.seconds
        if found := self._segments.find(label.id):
            return found
        if parts := _YODAS_ID.fullmatch(label.id):
            return parts[1], int(parts[2]) / 100, int(parts[3]) / 100
        if label.recording is None and (parts := _SEGMENT_ID.fullmatch(label.id)):
            recording = parts[1]
        return recording, None, None

    def _named(self, label: Label) -> AudioFile | None:
        """Return the file that a label names, or the file of the utterance alone."""
        found = self._index.find(Path(label.file).stem) if label.file else None
        return found or self._index.find(label.id)

    def _session(self, recording: str) -> AudioFile | None:
        names = (recording, f"{recording}_{self._lang}", f"{recording}_original")
        session = recording.removesuffix(f"_{self._lang}")
        return next(filter(None, map(self._index.find, (*names, f"{session}_original"))), None)


def audio_folder(root: Path, source: str) -> Path:
    """Return the folder of a source's audio.

    Raises:
        MlmaError: there is none.
    """
    places = (root / "audio" / source, root.absolute().parent / source)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise MlmaError(
            f"no audio of {source} in {places[0]} or {places[1]}; download it, or link its folder"
        )
    return found


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]] | Drop]:
    """Read a file of JSON objects, one on each line.

    Yields:
        `<file>:<line>` and the object, or a drop if the line has none. Empty lines are ignored.

    Raises:
        MlmaError: the file cannot be read.
    """
    for number, row in json_rows(path, "download it again"):
        place = f"{path.name}:{number}"
        is_object = isinstance(row, dict)
        yield (place, row) if is_object else Drop(place, "bad_row", f"{path}:{number}: {row}")


def filtered(where: Where, row: Mapping[str, Any], id_: str, place: str) -> Drop | None:
    """Drop a row that does not meet the conditions; its reason is `not_<condition>`."""
    unmet = where.unmet(row)
    if unmet is None:
        return None
    value = row.get(unmet.removeprefix("min_").removeprefix("max_"))
    return Drop(id_ or place, f"not_{unmet}", f"{place}: {_shown(str(value))}")


def _parts(folder: Path, lang: str) -> list[Path]:
    """Return the folders of a language's audio in a source's folder."""
    names = (f"raw_audios/{lang}", "raw_audios/original", f"unlabelled_data/{lang}", lang)
    found = [folder / name for name in names if (folder / name).is_dir()]
    shards = folder / "data"
    if shards.is_dir():
        found += sorted(p for p in shards.iterdir() if re.fullmatch(rf"{lang}\d*", p.name))
    return found or [folder]


def _problem(label: Label) -> tuple[str, str] | None:
    """Return reason and detail of what is wrong with a label; None: nothing."""
    if label.file is not None:
        # Absolute paths are those of the labels' makers; only the name is used.
        problem = name_problem(label.file.lstrip("/"))
        if problem:
            return "unsafe_name", problem
    if label.offset is not None and not 0 <= label.offset < math.inf:
        return "bad_span", f"offset {label.offset}"
    if label.seconds is not None and not 0 < label.seconds < math.inf:
        return "bad_span", f"duration {label.seconds}"
    if not label.text.strip():
        return "empty_text", "no text"
    if "\0" in label.text or any("\ud800" <= char <= "\udfff" for char in label.text):
        return "bad_row", "the text has characters that are not UTF-8"
    return None


def _stem(audio: AudioFile) -> str:
    return Path(audio.member or audio.path).stem


def _shown(text: str) -> str:
    return ascii(text[:_LONGEST_SHOWN])[1:-1]
