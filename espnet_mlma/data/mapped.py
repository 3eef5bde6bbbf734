"""Look up rows of a large sorted table in its file, instead of reading it into a dictionary."""

from __future__ import annotations

import codecs
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from espnet_mlma.data import tables


def open_table(path: Path, made_by: str) -> Mapping[str, str]:
    """Open a table of `<key> <value>` lines without reading its values.

    Args:
        path: the table. If it is not sorted by bytes, it is read into a dictionary.
        made_by: the stage that writes it, for errors.

    Raises:
        MlmaError: as in `tables.read`.
    """
    try:
        table = MappedTable(path)
        if table.is_sorted():
            return table
    except (OSError, ValueError):  # missing, empty or a pipe
        pass
    return tables.read(path, made_by)


class MappedTable(Mapping[str, str]):
    """A table that is sorted by the bytes of its keys, mapped into memory.

    Processes share its pages. A look-up bisects the file.

    Args:
        path: the table.

    Raises:
        OSError, ValueError: it cannot be mapped, as an empty file.
    """

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def is_sorted(self) -> bool:
        """Return whether every line has a key, in ascending order, and LF or CR LF at its end."""
        before = b""
        if self._map[:3] == codecs.BOM_UTF8:
            return False
        for line in self._lines():
            key = line.split(maxsplit=1)[:1]
            if not key or not before < key[0] or b"\r" in line[:-2] or line[:1].isspace():
                return False
            before = key[0]
        return True

    def __getitem__(self, key: str) -> str:
        wanted = key.encode()
        low, high = 0, len(self._map)  # both at the beginning of a line
        while low < high:
            middle = (low + high) // 2
            start = max(self._map.rfind(b"\n", low, middle) + 1, low)
            end = self._map.find(b"\n", middle, high)
            end = high if end < 0 else end
            found, *value = self._map[start:end].split(maxsplit=1)
            if found == wanted:
                return value[0].rstrip().decode("utf-8") if value else ""
            if found < wanted:
                low = end + 1
            else:
                high = start
        raise KeyError(key)

    def __len__(self) -> int:
        return sum(1 for _ in self._lines())

    def __iter__(self) -> Iterator[str]:
        return (line.split(maxsplit=1)[0].decode("utf-8") for line in self._lines())

    def __reduce__(self):
        return MappedTable, (self.path,)

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from file
