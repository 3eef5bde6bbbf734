import gzip
import tracemalloc
from pathlib import Path

import pytest

from espnet_mlma.data.corpora import tsv
from espnet_mlma.data.corpora.tsv import read_lines, read_table, require
from espnet_mlma.data.utterance import Drop
from espnet_mlma.errors import MlmaError


def test_quotes_are_ordinary_characters(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text('id\ttext\n1\t"Hello\n2\tshe said "yes"\n', encoding="utf-8")
    rows = list(read_table(table, ["id", "text"], key=["id"]))
    assert [row["text"] for row in rows] == ['"Hello', 'she said "yes"']


def test_a_line_with_another_number_of_fields_is_read_with_quotes(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text('id|text|x\n1|"a ""b"" | c"|2\n', encoding="utf-8")
    [row] = read_table(table, ["id", "text"], key=["id"], delimiter="|")
    assert row == {"id": "1", "text": 'a "b" | c', "x": "2"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("2", "1 columns, but line 1 has 2"),
        ("2\tb\tc", "3 columns, but line 1 has 2"),
        ("2\rb", "1 columns, but line 1 has 2"),
        ('2 "b\rc', "1 columns, but line 1 has 2"),
        ("2" * 140_000, "1 columns, but line 1 has 2"),
        ("", "0 columns, but line 1 has 2"),
        ("2\tb\0", "NUL character"),
    ],
)
def test_an_invalid_row_is_dropped_with_its_line(tmp_path: Path, row: str, problem: str) -> None:
    table = tmp_path / "t.tsv"
    table.write_text(f"id\ttext\n1\ta\n{row}\n3\tc\n", encoding="utf-8", newline="\n")
    first, drop, last = read_table(table, ["id", "text"], key=["id"])
    assert (first["text"], last["text"]) == ("a", "c")
    assert drop == Drop("t.tsv:3", "bad_row", f"{table}:3: {problem}")


@pytest.mark.parametrize("line", ["b", "", "b\tc\0"])
def test_an_invalid_line_without_a_header_is_dropped(tmp_path: Path, line: str) -> None:
    lines = tmp_path / "transcripts.txt"
    lines.write_text(f"a\tb\n{line}\nd\te\n", encoding="utf-8")
    first, drop, last = read_lines(lines, 2, "\t")
    assert (first, last) == (["a", "b"], ["d", "e"])
    assert (drop.id, drop.reason) == ("transcripts.txt:2", "bad_row")


def test_a_duplicate_key_is_an_error_with_both_lines(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\n1\n2\n1\n")
    with pytest.raises(MlmaError, match=r"t\.tsv:4: duplicate key '1', first on line 2"):
        list(read_table(tmp_path / "t.tsv", ["id"], key=["id"]))


def test_an_empty_table_lacks_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.touch()
    with pytest.raises(MlmaError, match=r"column 'id' is missing \(found: nothing\)"):
        list(read_table(table, ["id"], key=["id"]))


def test_a_cut_off_gzip_is_an_error(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv.gz"
    lines = "id|text\n" + "".join(f"{n}|{n * 7919}\n" for n in range(5000))
    table.write_bytes(gzip.compress(lines.encode())[:-4000])
    with pytest.raises(MlmaError, match=r"t\.tsv\.gz: cannot read the table"):
        list(read_table(table, ["id"], key=["id"], delimiter="|"))


def test_latin_1_is_an_error(tmp_path: Path) -> None:
    lines = tmp_path / "transcripts.txt"
    lines.write_bytes("a\tpfürze\n".encode("latin-1"))
    with pytest.raises(MlmaError, match=r"transcripts\.txt:1: byte 0xfc is not UTF-8"):
        list(read_lines(lines, 2, "\t"))


def test_the_error_about_a_missing_file_names_archives_to_unpack(tmp_path: Path) -> None:
    (tmp_path / "mls_italian.tar.gz").touch()
    with pytest.raises(MlmaError, match=r"unpack mls_italian\.tar\.gz in .*") as error:
        require(tmp_path / "mls_italian/dev/transcripts.txt", "MLS", "https://home")
    assert "https://home" not in str(error.value)


def write_rows(path: Path, count: int) -> Path:
    path.write_text("id\ttext\n" + "".join(f"clip_{n:030d}\ta\n" for n in range(count)))
    return path


def test_rows_are_not_kept(tmp_path: Path) -> None:
    """A row takes 8 bytes; a million take far less than 300 MB."""
    table = write_rows(tmp_path / "t.tsv", 50_000)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_table(table, ["id"], key=["id"])) == 50_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50_000 * 50


def test_keys_with_equal_hashes_are_compared(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tsv, "hash", lambda key: 7, raising=False)
    table = write_rows(tmp_path / "t.tsv", 100)
    assert len(list(read_table(table, ["id"], key=["id"]))) == 100
    with open(table, "a", encoding="utf-8") as file:
        file.write(f"clip_{57:030d}\tagain\n")
    with pytest.raises(MlmaError, match=r"t\.tsv:102: duplicate key .*57', first on line 59"):
        list(read_table(table, ["id"], key=["id"]))


def test_rows_of_a_table_without_a_key_may_repeat(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\n1\n1\n")
    assert list(read_table(tmp_path / "t.tsv", ["id"], key=[])) == [{"id": "1"}, {"id": "1"}]
