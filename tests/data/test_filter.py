from pathlib import Path

import pytest

from espnet_mlma.data import tables
from espnet_mlma.data.filter import LengthLimits, ctc_frames, filter_folder
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.errors import MlmaError


@pytest.mark.parametrize(
    ("seconds", "text", "reason"),
    [
        (2.0, "hello", None),
        (2.0, "", "empty_text"),
        (0.2, "a", "too_short"),
        (31.0, "hello", "too_long"),
        (1.0, "a" * 13, None),  # 13 symbols and 12 blanks need 25 frames
        (1.0, "a" * 13 + "b", "too_many_symbols"),
    ],
)
def test_each_limit(seconds: float, text: str, reason: str | None) -> None:
    found = LengthLimits(0.3, 30).problem(seconds, text)
    assert (found and found[0]) == reason


def test_the_tables_of_a_filtered_folder_agree(make_data, tmp_path: Path) -> None:
    org, out = tmp_path / "org", tmp_path / "train"
    format_folder(make_data(5), org, nj=1)
    texts = tables.read(org / "text", "")
    first, second = list(texts)[:2]
    tables.write(org / "text", (texts | {first: "", second: "x" * 40}).items())
    counts = filter_folder(org, out, LengthLimits(0.3, 30))
    assert counts == {"kept": 3, "empty_text": 1, "too_many_symbols": 1}
    names = ("wav.scp", "text", "utt2spk", "utt2num_samples", "utt2category", "utt2dataset")
    assert {tuple(tables.read(out / name, "")) for name in names} == {tuple(list(texts)[2:])}
    spoken = tables.read(out / "utt2lang", "")
    expected = {id_: f"<{spoken[id_]}> {text}" for id_, text in list(texts.items())[2:]}
    assert tables.read(out / "text_lang", "") == expected
    dropped = (out / "dropped.tsv").read_text().splitlines()[1:]
    assert dropped[0] == f"{first}\tempty_text\tno words"
    assert (out / "audio_format").read_text() == "flac.ark\n"


def test_an_unfinished_stage_3_is_an_error(make_data, tmp_path: Path) -> None:
    format_folder(make_data(1), tmp_path / "org", nj=1)
    (tmp_path / "org" / "wav.scp").unlink()
    with pytest.raises(MlmaError, match=r"wav\.scp: no such file; run stage 3 first"):
        filter_folder(tmp_path / "org", tmp_path / "train", LengthLimits(0.3, 30))


def test_limits_that_leave_nothing_are_an_error(make_data, tmp_path: Path) -> None:
    format_folder(make_data(2), tmp_path / "org", nj=1)
    with pytest.raises(MlmaError, match="nothing left, dropped {'too_short': 2}; widen"):
        filter_folder(tmp_path / "org", tmp_path / "train", LengthLimits(5, 30))
    assert not (tmp_path / "train").exists()


def test_ctc_needs_a_blank_between_equal_symbols() -> None:
    assert [ctc_frames(text) for text in ("", "a", "ab", "aab", "aaa")] == [0, 1, 2, 4, 5]
