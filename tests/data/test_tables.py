from pathlib import Path

import pytest

from espnet_mlma.data import tables
from espnet_mlma.errors import MlmaError


def test_tables_round_trip_with_empty_values_and_odd_spaces(tmp_path: Path) -> None:
    rows = {"a": "", "b": "one two", "c": "é  ñ"}
    tables.write(tmp_path / "text", rows.items())
    assert tables.read(tmp_path / "text", "stage 1") == rows
    (tmp_path / "text").write_text("a\nb\tone two\nc   é  ñ\n", encoding="utf-8")
    assert tables.read(tmp_path / "text", "stage 1") == rows


def test_the_error_about_a_missing_table_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(MlmaError, match=r"wav\.scp: no such file; run stage 3 first"):
        tables.read(tmp_path / "wav.scp", "stage 3")


def test_a_duplicate_key_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a one\nb two\na three\n")
    with pytest.raises(MlmaError, match="text:3: duplicate key a"):
        tables.read(tmp_path / "text", "stage 1")


def test_the_prefix_of_copies_at_other_speeds_is_removed() -> None:
    ids = ["sp0.9-cv_it_a-1", "sp1.1-a", "cv_it_sp9-1", "spa-1"]
    assert [*map(tables.without_speed, ids)] == ["cv_it_a-1", "a", "cv_it_sp9-1", "spa-1"]


def test_an_empty_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a one\n \nb two\n")
    with pytest.raises(MlmaError, match="text:2: empty line"):
        tables.read(tmp_path / "text", "stage 1")


def test_tables_have_only_the_given_utterances(make_data, tmp_path: Path) -> None:
    data = make_data(4)
    ids = list(tables.read(data / "text", "stage 1"))[1:3]
    tables.write_utterance_tables(data, tmp_path, ids, "stage 1")
    assert list(tables.read(tmp_path / "utt2lang", "")) == ids
    speakers = tables.read(tmp_path / "spk2utt", "")
    assert " ".join(speakers.values()).split() == ids


def test_a_table_that_lacks_an_utterance_is_an_error(make_data, tmp_path: Path) -> None:
    with pytest.raises(MlmaError, match="text: nobody-1 is missing; run stage 1 again"):
        tables.write_utterance_tables(make_data(1), tmp_path, ["nobody-1"], "stage 1")
