import random
import re
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.score.align import Errors, align, count_alignment
from espnet_mlma.evaluation.score.result import (
    ResultLine,
    find_sclite,
    read_scores,
    report_text,
    write_result,
)

WORDS = [
    "città",
    "perché",
    "è",
    "e",
    "l'été",
    "œuf",
    "straße",
    "één",
    "ça",
    "i",
    "<space>",
    "▁de",
    "r",
]


def lines(count: int, longest: int) -> list[ResultLine]:
    rng = random.Random(count)

    def side(vocabulary: list[str]) -> list[str]:
        return [rng.choice(vocabulary) for _ in range(rng.choice([0, 1, 3, longest // 2, longest]))]

    made = []
    for number in range(count):
        speaker = f"mini_de_{rng.choice(['Alex', 'f2', 'm3'])}"
        vocabulary = WORDS[: rng.choice([2, 3, 6, len(WORDS)])]
        alignment = align(side(vocabulary), side(vocabulary))
        made.append(ResultLine(f"{speaker}-U{number:04d}", speaker, alignment))
    return made


def line(id_: str, speaker: str, reference: str, hypothesis: str) -> ResultLine:
    return ResultLine(id_, speaker, align(reference.split(), hypothesis.split()))


@pytest.fixture
def sclite() -> Path:
    found = find_sclite()
    if found is None:
        pytest.skip("no sclite")
    return found


@pytest.mark.parametrize(("count", "longest"), [(1500, 10), (20, 300)])
def test_both_scorers_count_the_same(tmp_path, sclite, count, longest):
    utterances = lines(count, longest)
    by_sclite = write_result(utterances, tmp_path / "sclite", sclite)
    ours = write_result(utterances, tmp_path / "ours", None)
    assert ours == by_sclite
    for name in ("ref.trn", "hyp.trn"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "sclite" / name).read_bytes()
    summaries = [summary(tmp_path / who / "result.txt") for who in ("ours", "sclite")]
    assert summaries[0] == summaries[1]


def summary(result: Path) -> list[list[str]]:
    """Read the numbers of the Sum/Avg and Sum lines."""
    lines = re.findall(r"^ *\| Sum(?:/Avg)? .*", result.read_text(encoding="utf-8"), re.M)
    assert len(lines) == 2
    return [re.findall(r"[\d.]+", line) for line in lines]


def test_own_report_has_the_lines_that_scripts_grep(tmp_path):
    utterances = [
        line("mini_de_a-1", "mini_de_a", "schöne straße", "schöne strasse hier"),
        line("mini_de_b-1", "mini_de_b", "ja", ""),
        line("mini_de_b-2", "mini_de_b", "", ""),
    ]
    scores = write_result(utterances, tmp_path / "score_wer", None)
    assert scores == {
        "mini_de_a-1": Errors(correct=1, sub=1, ins=1),
        "mini_de_b-1": Errors(del_=1),
        "mini_de_b-2": Errors(),
    }
    assert summary(tmp_path / "score_wer" / "result.txt") == [
        ["3", "3", "33.3", "33.3", "33.3", "33.3", "100.0", "66.7"],
        ["3", "3", "1", "1", "1", "1", "3", "2"],
    ]
    text = (tmp_path / "score_wer" / "result.txt").read_text(encoding="utf-8")
    assert "| SPKR" in text and "| # Snt # Wrd |" in re.sub(" +", " ", text)
    assert "HYP:  schöne STRASSE HIER" in text
    assert (tmp_path / "score_wer" / "hyp.trn").read_text(encoding="utf-8").splitlines() == [
        "schöne strasse hier (mini_de_a-mini_de_a-1)",
        " (mini_de_b-mini_de_b-1)",
        " (mini_de_b-mini_de_b-2)",
    ]


def test_words_longer_in_capitals_keep_their_columns():
    text = report_text([line("a-1", "a", "groß ist", "nein ist")], {"a-1": Errors(1, 1)})
    assert "REF:  GROSS ist\nHYP:  NEIN  ist\nEval: S" in text


def test_a_report_is_read_by_utterance():
    utterances = lines(50, 8)
    errors = {line.id: count_alignment(line.alignment) for line in utterances}
    assert read_scores(report_text(utterances, errors)) == {
        line.key: errors[line.id] for line in utterances
    }


def test_scoring_again_replaces_the_folder(tmp_path):
    write_result(lines(5, 4), tmp_path / "score_wer", None)
    write_result(lines(3, 4), tmp_path / "score_wer", None)
    assert len((tmp_path / "score_wer" / "ref.trn").read_text().splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["score_wer"]


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no memory >&2; exit 3", "no memory"),
        ("echo nothing", "mini_de_.* not in the report"),
    ],
)
def test_a_failing_scorer_is_an_error_and_leaves_the_old_result(tmp_path, script, message):
    folder = tmp_path / "score_wer"
    write_result(lines(5, 4), folder, None)
    before = (folder / "result.txt").read_bytes()
    with pytest.raises(MlmaError, match=message):
        write_result(lines(4, 4), folder, program(tmp_path / "bad", script))
    assert (folder / "result.txt").read_bytes() == before


def test_sclite_is_found_on_path_then_under_sctk_root(tmp_path, monkeypatch):
    on_path = program(tmp_path / "path" / "sclite", "true")
    in_bin = program(tmp_path / "root" / "bin" / "sclite", "true")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("SCTK_ROOT", str(tmp_path / "root"))
    assert find_sclite() == in_bin
    monkeypatch.setenv("SCTK_ROOT", str(tmp_path / "root" / "bin"))
    assert find_sclite() == in_bin
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_sclite() == on_path
