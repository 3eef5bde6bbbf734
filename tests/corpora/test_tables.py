import gzip
from pathlib import Path

import pytest

from espnet_mlma.corpora.tables import read_lines, read_table
from espnet_mlma.errors import MlmaError


def test_quotes_are_ordinary_characters(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text('id\ttext\n1\t"Hello\n2\tshe said "yes"\n', encoding="utf-8")
    rows = list(read_table(table, ["id", "text"], key=["id"]))
    assert [row["text"] for row in rows] == ['"Hello', 'she said "yes"']


def test_a_line_that_does_not_fit_is_tried_as_a_quoted_one(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text('id|text|x\n1|"a ""b"" | c"|2\n', encoding="utf-8")
    [row] = read_table(table, ["id", "text"], key=["id"], delimiter="|")
    assert row == {"id": "1", "text": 'a "b" | c', "x": "2"}


def test_a_short_row_names_its_line(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("id\ttext\n1\ta\n2\n", encoding="utf-8")
    with pytest.raises(MlmaError, match=r"t\.tsv:3: 1 columns where line 1 names 2"):
        list(read_table(table, ["id", "text"], key=["id"]))


def test_an_empty_table_lacks_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.touch()
    with pytest.raises(MlmaError, match=r"no column 'id' \(found: nothing\)"):
        list(read_table(table, ["id"], key=["id"]))


def test_a_cut_off_gzip_is_an_error(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv.gz"
    lines = "id|text\n" + "".join(f"{n}|{n * 7919}\n" for n in range(5000))
    table.write_bytes(gzip.compress(lines.encode())[:-4000])
    with pytest.raises(MlmaError, match=r"t\.tsv\.gz: not a readable table"):
        list(read_table(table, ["id"], key=["id"], delimiter="|"))


def test_a_line_without_text_names_its_line(tmp_path: Path) -> None:
    lines = tmp_path / "transcripts.txt"
    lines.write_text("a\tb\nc d\n", encoding="utf-8")
    with pytest.raises(MlmaError, match=r"transcripts\.txt:2: 1 of 2 fields"):
        list(read_lines(lines, 2, "\t"))


def test_latin_1_is_an_error(tmp_path: Path) -> None:
    lines = tmp_path / "transcripts.txt"
    lines.write_bytes("a\tpfürze\n".encode("latin-1"))
    with pytest.raises(MlmaError, match=r"transcripts\.txt: not a readable table"):
        list(read_lines(lines, 2, "\t"))
