from pathlib import Path

import pytest

from espnet_mlma.data.mix import draw, shares, table, write_sampler_files
from espnet_mlma.errors import MlmaError

HOUR = 16000 * 3600
# Language and corpus -> utterances of 6 minutes each.
SIZES = {("de", "mls"): 640, ("de", "cv"): 160, ("nl", "mls"): 40, ("nl", "vp"): 10}


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Write a training set of 80 h of German and 5 h of Dutch."""
    rows = [
        (f"{corpus}_{lang}_1-{number:04}", lang, corpus)
        for (lang, corpus), size in SIZES.items()
        for number in range(size)
    ]
    for name, value in (
        ("wav.scp", lambda row: "x.wav"),
        ("utt2dataset", lambda row: row[1]),
        ("utt2category", lambda row: row[2]),
        ("utt2num_samples", lambda row: str(HOUR // 10)),
    ):
        (tmp_path / name).write_text("".join(f"{row[0]} {value(row)}\n" for row in sorted(rows)))
    return tmp_path


def drawn_hours(dump: Path, *exponents: float, scaling: float = 20.0) -> dict:
    write_sampler_files(dump)
    rows = shares(dump, draw(dump, *exponents, scaling=scaling))
    assert {(row.lang, row.corpus): row.hours for row in rows} == pytest.approx(
        {key: size / 10 for key, size in SIZES.items()}
    )
    total = sum(row.drawn for row in rows)
    return {(row.lang, row.corpus): row.drawn / total for row in rows}


def test_exponent_one_keeps_the_proportions(dump: Path) -> None:
    drawn = drawn_hours(dump, 1.0, 1.0)
    total = sum(SIZES.values())
    assert drawn == pytest.approx({k: size / total for k, size in SIZES.items()}, abs=0.01)


def test_languages_are_balanced_before_corpora(dump: Path) -> None:
    """sqrt(80 h) : sqrt(5 h) = 4 : 1, and 2 : 1 for the corpora of both languages."""
    drawn = drawn_hours(dump, 0.5, 0.5)
    expected = {
        ("de", "mls"): 0.8 * 2 / 3,
        ("de", "cv"): 0.8 / 3,
        ("nl", "mls"): 0.2 * 2 / 3,
        ("nl", "vp"): 0.2 / 3,
    }
    assert drawn == pytest.approx(expected, abs=0.015)


def test_exponent_zero_draws_languages_equally(dump: Path) -> None:
    drawn = drawn_hours(dump, 0.0, 1.0)
    assert drawn["de", "mls"] + drawn["de", "cv"] == pytest.approx(0.5, abs=0.015)


def test_sampler_files_list_only_kept_utterances(dump: Path) -> None:
    kept = (dump / "wav.scp").read_text().splitlines()[1:]
    (dump / "wav.scp").write_text("\n".join(kept) + "\n")
    write_sampler_files(dump)
    listed = (dump / "category2utt").read_text().split()
    assert "cv_de_1-0000" not in listed and "cv_de_1-0001" in listed


def test_an_utterance_without_a_language_is_an_error(dump: Path) -> None:
    with open(dump / "wav.scp", "a") as scp:
        scp.write("sp0.9-cv_de_1-0000 x.wav\n")
    with pytest.raises(MlmaError, match="utt2category: sp0.9-cv_de_1-0000 is missing"):
        write_sampler_files(dump)


def test_a_scaling_below_one_is_an_error(dump: Path) -> None:
    write_sampler_files(dump)
    with pytest.raises(MlmaError, match="--scaling 0.5"):
        draw(dump, 0.5, 0.5, scaling=0.5)


def test_the_table_adds_up(dump: Path) -> None:
    write_sampler_files(dump)
    text = table(shares(dump, draw(dump, 0.5, 0.5)))
    rows = {line[:10].strip(): line.split()[1:] for line in text.splitlines()[1:]}
    assert rows["de"][0] == "80.00" and rows["all"] == ["85.00", "85.00", "100.0", "100.0"]
