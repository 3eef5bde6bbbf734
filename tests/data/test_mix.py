"""`mlma recipe mix` shows the mix that our sampler draws."""

from pathlib import Path

import pytest

from espnet_mlma.data import mix
from espnet_mlma.data.balance import Options
from espnet_mlma.data.mix import shares, table
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
        ("utt2dataset", lambda row: row[1]),
        ("utt2category", lambda row: row[2]),
        ("utt2num_samples", lambda row: str(HOUR // 10)),
    ):
        (tmp_path / name).write_text("".join(f"{row[0]} {value(row)}\n" for row in sorted(rows)))
    return tmp_path


def options(language: float, corpus: float) -> Options:
    return Options(HOUR, language_exponent=language, corpus_exponent=corpus)


def drawn_shares(dump: Path, language: float, corpus: float) -> dict:
    rows = shares(dump, options(language, corpus))
    assert {(row.lang, row.corpus): row.hours for row in rows} == pytest.approx(
        {key: size / 10 for key, size in SIZES.items()}
    )
    total = sum(row.drawn for row in rows)
    return {(row.lang, row.corpus): row.drawn / total for row in rows}


def test_exponent_one_keeps_the_proportions(dump: Path) -> None:
    drawn = drawn_shares(dump, 1.0, 1.0)
    total = sum(SIZES.values())
    assert drawn == pytest.approx({k: size / total for k, size in SIZES.items()}, abs=0.003)


def test_languages_are_balanced_before_corpora(dump: Path) -> None:
    """sqrt(80 h) : sqrt(5 h) = 4 : 1, and 2 : 1 for the corpora of both languages."""
    expected = {
        ("de", "mls"): 0.8 * 2 / 3,
        ("de", "cv"): 0.8 / 3,
        ("nl", "mls"): 0.2 * 2 / 3,
        ("nl", "vp"): 0.2 / 3,
    }
    assert drawn_shares(dump, 0.5, 0.5) == pytest.approx(expected, abs=0.003)


def test_exponent_zero_draws_languages_equally(dump: Path) -> None:
    drawn = drawn_shares(dump, 0.0, 1.0)
    assert drawn["de", "mls"] + drawn["de", "cv"] == pytest.approx(0.5, abs=0.003)


def test_an_utterance_without_a_language_is_an_error(dump: Path) -> None:
    with open(dump / "utt2num_samples", "a") as lengths:
        lengths.write("sp0.9-cv_de_1-0000 16000\n")
    with pytest.raises(MlmaError, match="utt2dataset: sp0.9-cv_de_1-0000 is missing"):
        shares(dump, options(0.5, 0.5))


def test_an_exponent_must_be_a_number(dump: Path) -> None:
    with pytest.raises(MlmaError, match="language_exponent: nan"):
        mix.main(["--dump", str(dump), "--language_exponent", "nan"])


def test_the_table_adds_up(dump: Path) -> None:
    text = table(shares(dump, options(0.5, 0.5)))
    rows = {line[:10].strip(): line.split()[1:] for line in text.splitlines()[1:]}
    assert rows["de"][0] == "80.00" and rows["all"][0] == "85.00"
    assert float(rows["all"][1]) == pytest.approx(85, abs=0.2)


def test_showing_the_mix_writes_nothing(dump: Path, capsys) -> None:
    before = sorted(dump.iterdir())
    mix.main(["--dump", str(dump)])
    assert capsys.readouterr().out.startswith(" " * 10)
    assert sorted(dump.iterdir()) == before
