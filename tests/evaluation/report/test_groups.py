import math
from dataclasses import replace

from espnet_mlma.evaluation.report import groups
from espnet_mlma.evaluation.report.page import marked, mean_rates, widths


def test_durations_fall_into_the_group_that_starts_at_them(spoken):
    heard = [spoken("a b", "a c", seconds=seconds) for seconds in (0.99, 1, 1.5, 2, 29.9, 30, 99)]
    found = groups.by_duration(heard)
    assert [(of.name, of.utterances) for of in found] == [
        ("0 to 1 s", 1),
        ("1 to 2 s", 2),
        ("2 to 3 s", 1),
        ("20 to 30 s", 1),
        ("30 s and more", 2),
    ]
    assert all(of.words.rate == 50 for of in found)


def test_fifths_by_confidence_hold_all_that_has_one_the_surest_first(spoken):
    heard = [spoken("a", "a" if n < 8 else "b", confidence=1 - n / 20) for n in range(11)]
    heard += [spoken("a", "b"), spoken("a", "", confidence=0.01, missing=True)]
    found = groups.by_confidence(heard[::-1])
    assert [of.utterances for of in found] == [2, 2, 2, 2, 3]
    assert [of.name for of in found][::4] == ["0.95 to 1.00", "0.50 to 0.60"]
    assert [of.words.sub for of in found] == [0, 0, 0, 0, 3]
    assert groups.by_confidence(heard[-2:]) == []


def test_fewer_confidences_than_groups_leave_no_empty_group(spoken):
    found = groups.by_confidence([spoken("a", "a", confidence=c) for c in (0.5, 0.9)])
    assert [of.utterances for of in found] == [1, 1]


def test_two_sets_of_a_corpus_are_told_apart(spoken):
    clean = spoken("a b", "a b")
    heard = [replace(clean, test_set=name) for name in ("test_ls_en", "test_lsother_en")]
    rows = groups.by_corpus([heard[0], replace(heard[1], word_errors=spoken("a", "x").word_errors)])
    assert [(of.name, of.words.rate) for of in rows[:2]] == [
        ("cv, test_ls_en", 0),
        ("cv, test_lsother_en", 100),
    ]
    assert [of.name for of in groups.by_corpus(heard[:1])] == ["cv"]


def test_speakers_of_one_name_in_two_languages_are_two_and_the_worst_is_first(spoken):
    heard = [spoken("a b", "a b", lang="it"), spoken("a b", "x b"), spoken("a b", "a y")]
    found = groups.by_speaker(heard)
    assert [(of.lang, of.words.rate) for of in found] == [("en", 50), ("it", 0)]


def test_a_language_has_a_row_for_each_corpus_and_a_sum(spoken):
    heard = [spoken("a", "b"), spoken("c d", "c", missing=True)]
    (only,) = groups.by_corpus(heard)
    assert (only.name, only.utterances, only.missing, only.words.del_) == ("cv", 2, 1, 1)


def test_languages_take_turns_among_the_worst(spoken):
    heard = [spoken("a b", "x y", f"en{n}") for n in range(4)]
    heard += [spoken("a b", "a y", "it1", "it"), spoken("a b", "a b", "it2", "it")]
    heard += [spoken("a b", "x y z", "en9")]
    listed = [one.utterance.id for one in groups.worst(heard, 4)]
    assert listed == ["en9", "it1", "en0", "en1"]
    assert len(groups.worst(heard, 50)) == 6


def test_words_out_of_nothing_are_worse_than_any_rate(spoken):
    heard = [spoken("a", "x y z", "rate"), spoken("", "x", "nothing")]
    assert groups.worst(heard, 1)[0].utterance.id == "nothing"
    assert groups.error_rate(heard[1].word_errors) == math.inf


def test_the_mean_leaves_out_languages_without_words(spoken):
    of = [groups.group("", [spoken(*texts)]) for texts in (("a b", "a c"), ("", ""), ("a", "a"))]
    assert mean_rates(of) == (25.0, 100 / 3 / 2)
    assert all(map(math.isnan, mean_rates([of[1]])))


def test_bars_are_as_wide_as_the_errors(spoken):
    of = groups.group("", [spoken("a b c d", "x b y z w")])
    assert widths(of, of.words.rate) == [("sub", 75), ("ins", 25)]
    assert widths(of, 2 * of.words.rate) == [("sub", 37.5), ("ins", 12.5)]


def test_pairs_are_marked_by_kind(spoken):
    pairs = spoken("one two three", "one too").words
    assert [(kind, mark) for kind, mark, _, _ in marked(pairs)] == [
        ("same", ""),
        ("del", "D"),
        ("sub", "S"),
    ]
    assert marked(spoken("", "so").words) == [("ins", "I", "", "so")]
