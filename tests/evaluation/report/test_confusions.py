from espnet_mlma.evaluation.report.confusions import Confusion, Confusions
from espnet_mlma.evaluation.report.page import heat


def test_words_are_counted_by_kind(scored):
    utterances = [
        scored("the cat", "a cat"),
        scored("the cat sat", "a cat"),
        scored("the", "the uh"),
    ]
    found = Confusions(one.words for one in utterances)
    assert found.substituted(10) == [Confusion("the", "a", 2, 3)]
    assert found.deleted(10) == [Confusion("sat", None, 1, 1)]
    assert found.inserted(10) == [Confusion(None, "uh", 1, 1)]


def test_the_most_frequent_come_first_and_no_more_than_asked(scored):
    utterances = [scored("b", "x"), scored("a", "x"), scored("c", "x"), scored("c", "x")]
    found = Confusions(one.words for one in utterances).substituted(2)
    assert [(one.spoken, one.count) for one in found] == [("c", 2), ("a", 1)]


def test_the_matrix_has_every_error_of_its_symbols(scored):
    utterances = [scored("bad", "bat"), scored("bad", "ad"), scored("a", "ay"), scored("a b", "ab")]
    matrix = Confusions(one.chars for one in utterances).matrix(16)
    assert matrix.symbols == ["<space>", "b", "d", "t", "y", None]

    def cell(spoken, recognised):
        return matrix.counts[matrix.symbols.index(spoken)][matrix.symbols.index(recognised)]

    assert cell("d", "t") == cell("b", None) == cell(None, "y") == cell("<space>", None) == 1
    assert cell("b", "b") == 2
    assert matrix.totals[matrix.symbols.index("b")] == 3
    row, column = matrix.symbols.index("d"), matrix.symbols.index("t")
    assert heat(matrix, row, column) == 1


def test_without_an_error_the_matrix_has_no_symbol(scored):
    assert Confusions([scored("a", "a").chars]).matrix(16).symbols == [None]
