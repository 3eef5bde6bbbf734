from itertools import combinations_with_replacement
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_mlma.sst.score.resegment import boundaries, resegment

tokens = st.lists(st.sampled_from("abc"), max_size=6)
talks = st.tuples(tokens, st.lists(st.lists(st.sampled_from("abcd"), max_size=3), min_size=1))


def edits(reference, hypothesis) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        above, row[0] = row[0], i
        for j, output in enumerate(hypothesis, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (word != output))
    return row[-1]


def cost(output, references, ends) -> int:
    pairs = zip(references, [0, *ends[:-1]], ends, strict=True)
    errors = sum(edits(reference, output[start:end]) for reference, start, end in pairs)
    return errors + sum(end == 0 for end in ends)


@given(talks)
def test_segmentation_has_the_least_cost(talk):
    output, references = talk
    references = references[:4]
    cuts = combinations_with_replacement(range(len(output) + 1), len(references) - 1)
    ends = boundaries(output, references)
    assert ends == sorted(ends) and ends[-1] == len(output)
    assert cost(output, references, ends) == min(
        cost(output, references, [*cut, len(output)]) for cut in cuts
    )


def aligned(output: str, references: list[str]) -> list[str]:
    align_texts = pytest.importorskip("mweralign").align_texts
    return [line.rstrip(" ") for line in align_texts("\n".join(references), output).split("\n")]


def random_text(random: Random, vocabulary: str, least: int, most: int) -> str:
    return " ".join(random.choices(vocabulary, k=random.randint(least, most)))


def test_words_and_ties_equal_mweralign():
    """With few different words, nearly every text has ties. Only ASCII case is ignored."""
    random = Random(0)
    for _ in range(1500):
        vocabulary = "abAäÄcd"[: random.randint(1, 7)]
        references = [random_text(random, vocabulary, 0, 5) for _ in range(random.randint(0, 4))]
        # mweralign loses an empty sentence at the end.
        references.append(random_text(random, vocabulary, 1, 5))
        output = random_text(random, vocabulary, 1, 14)
        spans = resegment(output.split(), references, "word", ignore_case=True)
        found = [" ".join(output.split()[span]) for span in spans]
        assert found == aligned(output, references), (output, references)


def test_characters_equal_mweralign():
    segmenter = pytest.importorskip("mweralign.segmenter").CJSegmenter()
    random = Random(1)
    for _ in range(1000):
        drawn = [random.choices("我们说 bé。", k=random.randint(1, 6)) for _ in range(4)]
        references = ["".join(characters).strip() or "我" for characters in drawn]
        output = "".join(random.choices("我们说 bÉ。", k=random.randint(1, 15)))
        encoded = [" ".join(segmenter.encode(text)) for text in (output, *references)]
        lines = [line.replace(" ", "") for line in aligned(encoded[0], encoded[1:])]
        spans = resegment(list(output), references, "char", ignore_case=True)
        assert [output[span].replace(" ", "▁") for span in spans] == lines, (output, references)


def test_ignore_case_changes_the_segmentation():
    output, references = ["a", "b", "c"], ["a B", "b c"]
    assert resegment(output, references, "word", ignore_case=True) == [slice(0, 2), slice(2, 3)]
    assert resegment(output, references, "word", ignore_case=False) == [slice(0, 1), slice(1, 3)]


def test_empty_output_and_empty_references():
    assert resegment([], ["a b", "", "c"], "word", ignore_case=True) == [slice(0, 0)] * 3
    assert resegment([], ["我", ""], "char", ignore_case=True) == [slice(0, 0)] * 2
    spans = resegment(["a", "x"], ["", "a", ""], "word", ignore_case=True)
    assert spans == [slice(0, 0), slice(0, 2), slice(2, 2)]
