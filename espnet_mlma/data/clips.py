"""Index the clips of a training set as arrays, grouped by language and corpus.

A sampler needs the length, language and corpus of every clip on every rank. The index holds them as
arrays in a folder beside the table of lengths. All processes of a machine map the same files, so
eight million clips cost a rank the pages that it touches, instead of dictionaries of strings.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np

from espnet_mlma import claims, files
from espnet_mlma.data import tables
from espnet_mlma.errors import MlmaError

MADE_BY = "stages 3 and 4"
LANGUAGES, CORPORA = "utt2dataset", "utt2category"
_FORMAT = 1  # raised when the files of the index change
_ARRAYS = ("ids", "ends", "lengths")
_ABOUT = "about.json"
_Source = tuple[Path, str]  # a table, and the stage that writes it
_Row = tuple[str, str, str, str]  # id, length, language, corpus


@dataclass(frozen=True)
class Clips:
    """The clips of a training set, sorted by language, corpus and id.

    A cell is one corpus of one language.

    Args:
        ids: the ids in UTF-8 without separators; bytes.
        ends: where each id ends in `ids`; (clips,).
        lengths: samples of each clip; (clips,).
        cells: language and corpus of each cell, sorted.
        starts: the first clip of each cell, and the number of clips; (cells + 1,).
        digest: of the tables that they were read from.
    """

    ids: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray
    cells: list[tuple[str, str]]
    starts: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.lengths)

    def cell_of(self, clips: np.ndarray) -> np.ndarray:
        """Return the numbers of the cells of clips, given as indices."""
        return np.searchsorted(self.starts, clips, side="right") - 1

    def id(self, clip: int) -> str:
        """Return the id of a clip."""
        start = self.ends[clip - 1] if clip else 0
        return self.ids[start : self.ends[clip]].tobytes().decode("utf-8")


@dataclass
class _Cell:
    """Clips of one corpus of one language while they are read."""

    ids: bytearray = field(default_factory=bytearray)
    ends: array = field(default_factory=partial(array, "q"))
    lengths: array = field(default_factory=partial(array, "q"))


def open_clips(shapes: Path, folder: Path) -> Clips:
    """Map the index of a training set into memory; write it first if it is missing or old.

    The index is the folder `<shapes>.clips`. One process writes it while others wait.

    Args:
        shapes: table of lengths, such as `speech_shape` of stage 10.
        folder: data folder with `utt2dataset` (language) and `utt2category` (corpus).

    Raises:
        MlmaError: as in `read_clips`; or the index cannot be written.
    """
    place = shapes.with_name(f"{shapes.name}.clips")
    sources = _sources(shapes, folder, "stage 10")
    digest = _digest(sources)
    if (found := _mapped(place, digest)) is not None:
        return found
    with claims.claim(place, "indexes clips", wait=True):
        if (found := _mapped(place, digest)) is not None:
            return found  # written by another process in the meantime
        clips = read_clips(shapes, folder)
        files.replace_folder(place, lambda new: _write(new, clips))
        return _mapped(place, digest) or clips


def read_clips(shapes: Path, folder: Path, made_by: str = "stage 10") -> Clips:
    """Read the clips of a training set from its tables.

    Args:
        shapes: table of lengths in samples; of `<samples>,<dimension>`, only samples count.
        folder: data folder with `utt2dataset` (language) and `utt2category` (corpus).
        made_by: the stage that writes the table of lengths, for errors.

    Raises:
        MlmaError: a table is missing, damaged or empty; the tables have different ids; a length is
            not a positive number; or a clip has no language or corpus.
    """
    sources = _sources(shapes, folder, made_by)
    digest = _digest(sources)
    try:
        cells = _grouped(_rows_in_order(sources), sources)
    except _OtherOrderError:
        cells = _grouped(_rows_in_any_order(sources), sources)
    if not cells:
        raise MlmaError(f"{shapes}: empty; run {made_by} again")
    names = sorted(cells)
    sizes = [len(cells[name].lengths) for name in names]
    lengths = np.concatenate([np.asarray(cells[name].lengths) for name in names])
    ids, ends, offset = bytearray(), [], 0
    for name in names:
        cell = cells.pop(name)
        ids += cell.ids
        ends.append(np.asarray(cell.ends) + offset)
        offset += len(cell.ids)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Clips(np.frombuffer(ids, np.uint8), np.concatenate(ends), lengths, names, starts, digest)


class _OtherOrderError(Exception):
    """The tables are not sorted alike."""


def _grouped(rows: Iterable[_Row], sources: list[_Source]) -> dict[tuple[str, str], _Cell]:
    """Group ids and lengths by language and corpus."""
    cells: dict[tuple[str, str], _Cell] = {}
    for id_, length, lang, corpus in rows:
        samples = length.partition(",")[0]
        if not (samples.isdecimal() and len(samples) < 19 and (number := int(samples)) > 0):
            path, made_by = sources[0]
            problem = f"'{length[:40]}' is not a positive number; run {made_by} again"
            raise tables.row_error(path, id_, problem)
        cell = cells.get((lang, corpus))
        if cell is None:
            if not lang or not corpus:
                path, made_by = sources[2 if lang else 1]
                raise tables.row_error(path, id_, f"{id_} has no value; run {made_by} again")
            cell = cells[lang, corpus] = _Cell()
        cell.ids += id_.encode()
        cell.ends.append(len(cell.ids))
        cell.lengths.append(number)
    return cells


def _rows_in_order(sources: list[_Source]) -> Iterator[_Row]:
    """Yield id, length, language and corpus from tables that are sorted alike."""
    before = ""
    read = [tables.rows(*source) for source in sources]
    for shape, lang, corpus in zip_longest(*read, fillvalue=("", "")):
        id_ = shape[0]
        if not before < id_ == lang[0] == corpus[0]:
            raise _OtherOrderError
        yield id_, shape[1], lang[1], corpus[1]
        before = id_


def _rows_in_any_order(sources: list[_Source]) -> Iterator[_Row]:
    """Yield the same rows, sorted, from tables in any order; needs memory for all of them."""
    read = [tables.read(*source) for source in sources]
    ids = sorted({id_ for table in read for id_ in table})
    for table, (path, made_by) in zip(read, sources, strict=True):
        missing = next((id_ for id_ in ids if id_ not in table), None)
        if missing is not None:
            raise MlmaError(f"{path}: {missing} is missing; run {made_by} again")
    shapes, langs, corpora = read
    for id_ in ids:
        yield id_, shapes[id_], langs[id_], corpora[id_]


def _sources(shapes: Path, folder: Path, made_by: str) -> list[_Source]:
    return [(shapes, made_by), (folder / LANGUAGES, MADE_BY), (folder / CORPORA, MADE_BY)]


def _digest(sources: list[_Source]) -> str:
    total = hashlib.sha256(str(_FORMAT).encode())
    for path, made_by in sources:
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            raise MlmaError(f"{path.absolute()}: no such file; run {made_by} first") from None
        except OSError as error:
            reason = error.strerror or error
            raise MlmaError(f"{path}: cannot be read ({reason}); run {made_by} again") from None
    return total.hexdigest()


def _write(place: Path, clips: Clips) -> None:
    for name in _ARRAYS:
        np.save(place / f"{name}.npy", getattr(clips, name))
    about = {"digest": clips.digest, "cells": clips.cells, "starts": clips.starts.tolist()}
    (place / _ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")


def _mapped(place: Path, digest: str) -> Clips | None:
    """Map an index; None: it is missing, damaged, or of other tables."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        if about["digest"] != digest:
            return None
        ids, ends, lengths = (np.load(place / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
        starts = np.array(about["starts"])
        if starts[-1] == len(ends) == len(lengths) and ends[-1] == len(ids):
            return Clips(ids, ends, lengths, [(a, b) for a, b in about["cells"]], starts, digest)
    return None
