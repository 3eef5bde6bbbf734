"""Tests of trajectories: the translation emitted after each chunk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_mlma.sst.data.trajectory import (
    boundaries,
    chunk_at,
    chunks_up_to,
    merge,
    turn_after,
    turns,
)
from espnet_mlma.sst.grid import CHUNK_SECONDS
from espnet_mlma.sst.languages import pieces, separator

HALF_A_SAMPLE = 0.5001 / 16000


@st.composite
def aligned(draw):
    """Draw ends of words, a number of pieces, and pairs."""
    words, count = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    steps = draw(st.lists(st.floats(0.01, 1.5), min_size=words, max_size=words))
    ends = [sum(steps[: i + 1]) for i in range(words)]
    pair = st.tuples(st.integers(0, words - 1), st.integers(0, count - 1))
    return ends, count, draw(st.lists(pair, max_size=20))


def test_paper_rules_on_one_sentence():
    ends = [1.0, 2.0, 3.0, 4.0]
    # Piece 0 has two words, 1 an earlier one, 2 none, 3 one, and the last none.
    pairs = [(0, 0), (2, 0), (1, 1), (3, 3)]
    assert boundaries(ends, 5, pairs) == [3.0, 3.0, 4.0, 4.0, 4.0]
    assert boundaries(ends, 3, [(0, 0)]) == [1.0, 4.0, 4.0]


@given(aligned())
def test_pieces_wait_for_the_end_of_their_words(example):
    ends, count, pairs = example
    times = boundaries(ends, count, pairs)
    assert len(times) == count
    assert times == sorted(times)
    assert all(times[piece] >= ends[word] for word, piece in pairs)
    assert times[-1] == ends[-1]
    for piece in range(count - 1):
        if all(piece != of for _, of in pairs):
            assert times[piece] == times[piece + 1]
    for time in times:
        assert time <= (turn_after(time) + 1) * CHUNK_SECONDS + HALF_A_SAMPLE


@given(aligned(), st.integers(0, 30))
def test_joined_turns_equal_the_text(example, first):
    ends, count, pairs = example
    words = tuple(f" w{i}" for i in range(count))
    start = first * CHUNK_SECONDS
    times = [start + time for time in boundaries(ends, count, pairs)]
    chunks = chunks_up_to(start + ends[-1]) - first
    texts = turns(zip(words, times, strict=True), first, chunks)
    assert len(texts) == chunks
    assert "".join(texts) == "".join(words)
    assert texts[-1] != ""


@given(st.lists(st.text("ab ", max_size=4), min_size=1, max_size=40), st.integers(1, 12))
def test_merge_keeps_the_text_and_delays_it(texts, multiplier):
    merged = merge(texts, multiplier)
    assert "".join(merged) == "".join(texts)
    assert len(merged) == -(-len(texts) // multiplier)
    for turn in range(len(merged)):
        expected = "".join(texts[: (turn + 1) * multiplier])
        assert "".join(merged[: turn + 1]) == expected


@given(st.integers(0, 10**6))
def test_chunk_boundary(k):
    moment = k * 0.96  # not exactly k chunks in binary
    assert chunk_at(moment) == k
    assert chunks_up_to(moment) == k
    assert chunk_at(moment + 1 / 16000) == k
    assert chunks_up_to(moment + 1 / 16000) == k + 1
    assert turn_after(moment) == max(0, k - 1)


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@pytest.mark.parametrize("language", ["de", "zh"])
@given(text=TEXTS)
def test_joined_pieces_equal_the_text(language, text):
    found = pieces(text, language)
    assert "".join(found) == " ".join(text.split())
    assert all(piece.strip() for piece in found)


def test_pieces_of_german_and_chinese(monkeypatch):
    assert pieces(" Guten  Tag , Welt !", "de") == ("Guten", " Tag ,", " Welt !")
    assert pieces("« Ja », sagt er – nun", "de") == ("« Ja »,", " sagt", " er –", " nun")
    monkeypatch.setattr("espnet_mlma.sst.languages.find_spec", lambda name: None)
    assert pieces("我们用 GPT-4 翻译。", "zh") == (*"我们用", " GPT-4", " 翻", "译。")
    assert pieces("他说：“好。”", "zh") == ("他", "说：", "“好。”")
    assert separator("zh") == "" and separator("de") == " "
