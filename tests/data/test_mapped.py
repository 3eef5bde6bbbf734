"""Rows of a sorted table, looked up in its file."""

import pickle

import pytest

from espnet_mlma.data import tables
from espnet_mlma.data.mapped import MappedTable, open_table
from espnet_mlma.errors import MlmaError

ROWS = {f"u{i:04d}": f"text of  {i} é" * (i % 5) for i in range(0, 3000, 3)}
ROWS |= {"u00": "a prefix of others", "v": "", "é-1": "last"}


def write(path, rows, end="\n", last=True):
    text = end.join(f"{key} {value}".rstrip() for key, value in rows) + (end if last else "")
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_every_row_is_found_as_in_a_dictionary(tmp_path, end, last):
    path = write(tmp_path / "text", sorted(ROWS.items()), end, last)
    table = open_table(path, "stage 1")
    assert isinstance(table, MappedTable)
    assert dict(table) == tables.read(path, "stage 1") == {k: v.strip() for k, v in ROWS.items()}
    assert len(table) == len(ROWS)
    assert dict(pickle.loads(pickle.dumps(table))) == dict(table)


@pytest.mark.parametrize("key", ["", "a", "u", "u0001", "u00000", "u2998", "w", "zz", "é-2"])
def test_a_missing_key_is_a_key_error(tmp_path, key):
    table = MappedTable(write(tmp_path / "text", sorted(ROWS.items())))
    assert key not in table
    with pytest.raises(KeyError):
        table[key]


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_another_table_is_read_into_a_dictionary(tmp_path, start):
    rows = list(ROWS.items()) if start else list(reversed(ROWS.items()))
    path = write(tmp_path / "text", rows)
    path.write_bytes(start.encode() + path.read_bytes())
    table = open_table(path, "stage 1")
    assert isinstance(table, dict)
    assert table == {k: v.strip() for k, v in ROWS.items()}


@pytest.mark.parametrize("contents", [b"a 1\na 2\n", b"a 1\n\nb 2\n"])
def test_a_damaged_table_is_the_error_of_the_dictionary(tmp_path, contents):
    (tmp_path / "text").write_bytes(contents)
    with pytest.raises(MlmaError, match="text:2: "):
        open_table(tmp_path / "text", "stage 1")


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(MlmaError, match="no such file; run stage 1 first"):
        open_table(tmp_path / "text", "stage 1")
