"""Read corpora in the layouts of the Hugging Face hub: Parquet files with embedded audio.

The files of one language and split are below the corpus's folder, or its `data` or `parquet-data`:

    <language>/<split>/0000.parquet                      (branch refs/convert/parquet)
    <language>/<split>-00000-of-00002.parquet            (branch main)

`dev` is called `validation` by most corpora. A split with missing files is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_mlma.audio import parquet
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.utterance import Drop
from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import number_of, positive_of

_PARENTS = ("", "data", "parquet-data")
_OTHER_NAMES = {"dev": ("dev", "validation")}
_NUMBERED = re.compile(r"()(\d{1,6})\.parquet")
_OF_TOTAL = re.compile(r"(.+)-(\d{1,6})-of-(\d{1,6})\.parquet")
_SHOWN = 3  # missing files named in an error


@dataclass(frozen=True, slots=True)
class HubRow:
    """One row of a Parquet file.

    Attributes:
        audio: where its audio is.
        values: of its columns; None where the file has null.
    """

    audio: AudioFile
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """File name of the audio; empty if the file has none."""
        return parquet.name_of(self.audio.member or "")

    def text(self, column: str) -> str:
        """Return a value as text; null and a missing column are the empty text."""
        value = self.values.get(column)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas makes floats of whole numbers beside nulls
        return "" if value is None else str(value)

    def number(self, column: str) -> float | None:
        """Return a value as a number; None if there is no finite one."""
        return number_of(self.values.get(column))

    def positive(self, column: str) -> float | None:
        """Return a value as a number above 0; None if there is none."""
        return positive_of(self.values.get(column))

    def drop(self, id_: str, reason: str, problem: str, speaker: str = "") -> Drop:
        """Drop the row."""
        return Drop(id_, reason, f"{self.audio}: {problem}", speaker)

    def bad_row(self, problem: str) -> Drop:
        """Drop the row for a problem that leaves it without an id."""
        return self.drop(f"{self.audio.path.name}:{self.audio.member}", "bad_row", problem)


def find_split(root: Path, language: str, split: str, corpus: str, home: str) -> list[Path] | None:
    """Find the Parquet files of a split.

    Args:
        root: the corpus's folder.
        language: folder of the language.
        split: `train`, `dev` or `test`.
        corpus: name of the corpus, for errors.
        home: where to download it.

    Returns:
        The files in their order; None: the folder has no Parquet files of the language.

    Raises:
        MlmaError: the language has only other splits, or a file of the split is missing.
    """
    folders = [root / parent / language for parent in _PARENTS]
    there = [found for folder in folders if (found := _splits(folder))]
    if not there:
        return None
    for name in _OTHER_NAMES.get(split, (split,)):
        for splits in there:
            if name in splits:
                return _complete(splits[name], corpus, home)
    first = next(iter(there[0].values()))[0].parent
    others = ", ".join(sorted({name for splits in there for name in splits}))
    note = ""
    if any(f"partial-{split}" in splits for splits in there):
        note = f"; partial-{split} is only its beginning"
    raise MlmaError(
        f"{corpus}: no split '{split}' of {language} near {first} (there: {others}){note}; "
        f"download it from {home}"
    )


def _splits(folder: Path) -> dict[str, list[Path]]:
    """List the Parquet files of a language by the name of their split."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"*{parquet.SUFFIX}")):
        name = _OF_TOTAL.fullmatch(path.name)
        found.setdefault(name[1] if name else path.stem, []).append(path)
    for path in sorted(folder.glob(f"*/*{parquet.SUFFIX}")):
        found.setdefault(path.parent.name, []).append(path)
    return found


def _complete(paths: list[Path], corpus: str, home: str) -> list[Path]:
    """Return the files of a split.

    Raises:
        MlmaError: one is missing, or there are files of two editions.
    """
    names = [_OF_TOTAL.fullmatch(path.name) for path in paths]
    if len({(path.parent, name and name[3]) for path, name in zip(paths, names, strict=True)}) > 1:
        raise MlmaError(
            f"{corpus}: {paths[0]} and {paths[-1]} are of two editions; remove one of these"
        )
    found = list(filter(None, names)) or list(filter(None, map(_match_number, paths)))
    numbers = {int(name[2]) for name in found}
    total = int(names[0][3]) if names[0] else max(numbers, default=-1) + 1
    missing = sorted(set(range(total)) - numbers)
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN])) + ", ..." * (len(missing) > _SHOWN)
        raise MlmaError(
            f"{corpus}: {len(missing)} of {total} files are missing beside {paths[0]}, counted "
            f"from 0: {shown}; download them from {home}"
        )
    return paths


def _match_number(path: Path) -> re.Match[str] | None:
    return _NUMBERED.fullmatch(path.name)


def read_rows(
    paths: Sequence[Path],
    columns: Sequence[str],
    key: Callable[[HubRow], str],
    optional: Sequence[str] = (),
) -> Iterator[tuple[str, HubRow] | Drop]:
    """Read the rows of a split, without their audio.

    Args:
        paths: its files.
        columns: columns that must exist.
        key: returns the name of a row, which must be unique.
        optional: columns that are read if they exist.

    Yields:
        The key and the row, or a drop if it has no key or the key of an earlier row.

    Raises:
        MlmaError: a file is damaged, or a column is missing.
    """
    seen: set[bytes] = set()  # digests, which are smaller than the keys
    for path in paths:
        for member, values in parquet.iter_rows(path, columns, optional):
            row = HubRow(AudioFile(path, member), values)
            name = key(row)
            if not name.strip():
                yield row.bad_row("has no name")
                continue
            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).digest()
            if digest in seen:
                yield row.bad_row(f"duplicate of an earlier row, '{name}'")
                continue
            seen.add(digest)
            yield name, row
