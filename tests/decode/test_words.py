import pytest

from espnet_mlma.decode.best_path import Path
from espnet_mlma.decode.transcript import Transcript, Word, join
from espnet_mlma.decode.words import (
    Calibration,
    raw_confidence,
    timed_tokens,
    timed_words,
    token_groups,
)

CHARACTERS = ["<blank>", "<unk>", "<space>", "a", "b", "c"]
PIECES = ["<blank>", "<unk>", "\u2581", "\u2581a", "b", "\u2581c", "<eng>"]


def words(ids, first, end, tokens, token_type, duration, special=()):
    path = Path(tuple(ids), 0.0, tuple(first), tuple(end), tuple(-0.1 * i for i in range(len(ids))))
    timed = timed_tokens(path, tokens, 100, 0.04)
    return timed_words(token_groups(timed, token_type, special), token_type, duration)


def test_characters_between_spaces_are_words():
    # "a b<space>c", with a space before and two after
    found = words(
        [2, 3, 4, 2, 5, 2, 2], [0, 2, 4, 5, 10, 30, 33], [1, 3, 5, 6, 11, 31, 34],
        CHARACTERS, "char", 10.0,
    )  # fmt: skip
    assert [word.text for word in found] == ["ab", "c"]
    # The peaks are from 4.08 to 4.20 and from 4.40 to 4.44; words are longer than their peaks.
    assert [word.start for word in found] == pytest.approx([4.05, 4.37])
    assert [word.end for word in found] == pytest.approx([4.22, 4.46])


def test_no_word_ends_after_the_next_begins_or_the_audio_ends():
    found = words([3, 2, 4], [0, 2, 3], [3, 3, 4], CHARACTERS, "char", 4.17)
    assert found[0].end == found[1].start == pytest.approx(4.09)
    assert found[1].end == pytest.approx(4.17)


def test_pieces_begin_words_and_special_symbols_do_not():
    # A space piece begins a word whose letters follow.
    found = words([6, 3, 4, 5, 2, 4], range(0, 12, 2), range(1, 13, 2), PIECES, "bpe", 9, {6})
    assert [word.text for word in found] == ["ab", "c", "b"]


def test_confidence_is_a_probability_of_the_symbols():
    assert raw_confidence([0.0, 0.0]) == 1
    assert raw_confidence([-1.0, -3.0]) == pytest.approx(0.1353, abs=1e-4)
    calibration = Calibration(total=0.5, mean=1.0, bias=2.0)
    sure, unsure, hopeless = (calibration.confidence(s) for s in ([-0.1], [-0.1, -2], [-1e9]))
    assert 0 <= hopeless < unsure < sure < 1
    assert sure == pytest.approx(1 / (1 + 2.718281828 ** -(2 - 0.15)))


def test_parts_join_in_the_language_of_most_of_the_text():
    def part(text, language, start):
        word = Word(text, start, start + 1, 0.5)
        return Transcript(text, (word,) if text else (), language, -1.0, 1.0, ())

    parts = [
        part("ja", "de", 0),
        part("", None, 1),
        part("buongiorno", "it", 2),
        part("so", "de", 3),
    ]
    whole = join(parts, 4.5)
    assert whole.text == "ja buongiorno so" and whole.language == "it"
    assert [word.start for word in whole.words] == [0, 2, 3]
    assert (whole.score, whole.duration) == (-4.0, 4.5)
    assert join([], 0.0) == Transcript("", (), None, 0, 0.0, ())
