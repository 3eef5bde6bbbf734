import math
from dataclasses import replace

from espnet_mlma.evaluation.report import groups
from espnet_mlma.evaluation.report.page import marked, mean_rates, widths


def test_a_duration_is_in_the_group_that_starts_at_it(scored):
    utterances = [
        scored("a b", "a c", seconds=seconds) for seconds in (0.99, 1, 1.5, 2, 29.9, 30, 99)
    ]
    found = groups.by_duration(utterances)
    assert [(of.name, of.utterances) for of in found] == [
        ("0 to 1 s", 1),
        ("1 to 2 s", 2),
        ("2 to 3 s", 1),
        ("20 to 30 s", 1),
        ("30 s and more", 2),
    ]
    assert all(of.words.rate == 50 for of in found)


def test_fifths_by_confidence_have_all_utterances_with_one_highest_first(scored):
    utterances = [scored("a", "a" if n < 8 else "b", confidence=1 - n / 20) for n in range(11)]
    utterances += [scored("a", "b"), scored("a", "", confidence=0.01, missing=True)]
    found = groups.by_confidence(utterances[::-1])
    assert [of.utterances for of in found] == [2, 2, 2, 2, 3]
    assert [of.name for of in found][::4] == ["0.95 to 1.00", "0.50 to 0.60"]
    assert [of.words.sub for of in found] == [0, 0, 0, 0, 3]
    assert groups.by_confidence(utterances[-2:]) == []


def test_fewer_confidences_than_groups_leave_no_empty_group(scored):
    found = groups.by_confidence([scored("a", "a", confidence=c) for c in (0.5, 0.9)])
    assert [of.utterances for of in found] == [1, 1]


def test_two_sets_of_a_corpus_have_a_group_each(scored):
    names = ("test_ls_en", "test_lsother_en")
    texts = (("a b", "a b"), ("a", "x"))
    utterances = [replace(scored(*t), test_set=n) for t, n in zip(texts, names, strict=True)]
    rows = groups.by_corpus(utterances)
    assert [(of.name, of.words.rate) for of in rows[:2]] == [
        ("cv, test_ls_en", 0),
        ("cv, test_lsother_en", 100),
    ]
    assert [of.name for of in groups.by_corpus(utterances[:1])] == ["cv"]


def test_speakers_of_one_name_in_two_languages_are_two_and_the_worst_is_first(scored):
    utterances = [scored("a b", "a b", lang="it"), scored("a b", "x b"), scored("a b", "a y")]
    found = groups.by_speaker(utterances)
    assert [(of.lang, of.words.rate) for of in found] == [("en", 50), ("it", 0)]


def test_a_language_has_a_row_for_each_corpus_and_a_sum(scored):
    utterances = [scored("a", "b"), scored("c d", "c", missing=True)]
    (only,) = groups.by_corpus(utterances)
    assert (only.name, only.utterances, only.missing, only.words.del_) == ("cv", 2, 1, 1)


def test_languages_take_turns_among_the_worst(scored):
    utterances = [scored("a b", "x y", f"en{n}") for n in range(4)]
    utterances += [scored("a b", "a y", "it1", "it"), scored("a b", "a b", "it2", "it")]
    utterances += [scored("a b", "x y z", "en9")]
    listed = [one.id for one in groups.worst(utterances, 4)]
    assert listed == ["en9", "it1", "en0", "en1"]
    assert len(groups.worst(utterances, 50)) == 6


def test_insertions_without_reference_are_worse_than_any_rate(scored):
    utterances = [scored("a", "x y z", "rate"), scored("", "x", "nothing")]
    assert groups.worst(utterances, 1)[0].id == "nothing"
    assert groups.error_rate(utterances[1].word_errors) == math.inf


def test_the_mean_leaves_out_languages_without_words(scored):
    of = [groups.group("", [scored(*texts)]) for texts in (("a b", "a c"), ("", ""), ("a", "a"))]
    assert mean_rates(of) == (25.0, 100 / 3 / 2)
    assert all(map(math.isnan, mean_rates([of[1]])))


def test_bars_are_as_wide_as_the_errors(scored):
    of = groups.group("", [scored("a b c d", "x b y z w")])
    assert widths(of, of.words.rate) == [("sub", 75), ("ins", 25)]
    assert widths(of, 2 * of.words.rate) == [("sub", 37.5), ("ins", 12.5)]


def test_pairs_are_marked_by_kind(scored):
    pairs = scored("one two three", "one too").words
    assert [(kind, mark) for kind, mark, _, _ in marked(pairs)] == [
        ("same", ""),
        ("del", "D"),
        ("sub", "S"),
    ]
    assert marked(scored("", "so").words) == [("ins", "I", "", "so")]
