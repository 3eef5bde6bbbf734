import csv
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_mlma.evaluation.score.align import Errors, align, count_errors

# What sclite 2.10 (-e utf-8 -s -i rm) counted: random word strings with accents, empty sides, ties.
GOLDEN = Path(__file__).with_name("sclite_counts.tsv")

words = st.lists(st.sampled_from(["a", "è", "œuf", "l'été", "straße"]), max_size=12)


def test_counts_are_those_of_sclite():
    with GOLDEN.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    assert len(rows) == 248
    for reference, hypothesis, counts in rows:
        expected = Errors(*map(int, counts.split()))
        assert count_errors(reference.split(), hypothesis.split()) == expected, (
            reference,
            hypothesis,
        )


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("", "", Errors()),
        ("a b", "", Errors(del_=2)),
        ("", "a b", Errors(ins=2)),
        ("é", "e", Errors(sub=1)),
        ("é", "É", Errors(sub=1)),
        # cost 12 both: three substitutions, or a match, two deletions and two insertions
        ("a b c", "c d e", Errors(sub=3)),
        # sclite prefers two insertions and two deletions (12) to four substitutions (16)
        ("a b c d", "c d x y", Errors(correct=2, del_=2, ins=2)),
    ],
)
def test_counts(reference, hypothesis, expected):
    assert count_errors(reference.split(), hypothesis.split()) == expected


@given(words, words)
def test_an_alignment_keeps_both_sides_and_its_counts_add_up(reference, hypothesis):
    pairs = align(reference, hypothesis)
    assert [spoken for spoken, _ in pairs if spoken is not None] == reference
    assert [recognised for _, recognised in pairs if recognised is not None] == hypothesis
    errors = count_errors(reference, hypothesis)
    assert errors.reference == len(reference)
    assert errors.correct + errors.sub + errors.ins == len(hypothesis)


@given(words)
def test_the_same_on_both_sides_is_no_error(text):
    assert count_errors(text, text) == Errors(correct=len(text))


def test_rate_counts_errors_per_reference_token():
    assert Errors(correct=6, sub=1, del_=1, ins=2).rate == 50
    assert math.isnan(Errors(ins=1).rate)
    assert Errors(1, 2, 3, 4) + Errors(1, 1, 1, 1) == Errors(2, 3, 4, 5)
