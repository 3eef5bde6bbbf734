import math
import random
import re
import subprocess

import numpy as np
import pytest

from espnet_mlma.evaluation.compare.comparison import SystemPair
from espnet_mlma.evaluation.compare.statistics import Bootstrap, bootstrap, mapsswe, segments, slots
from espnet_mlma.evaluation.compare.table import pairs_grid
from espnet_mlma.evaluation.score.align import align
from espnet_mlma.evaluation.score.result import ResultLine, find_sclite, write_result


def speakers(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


def test_equal_differences_of_all_speakers_are_certain():
    found = bootstrap([2] * 50, [1] * 50, [10] * 50, speakers(50))
    assert (found.difference, found.low, found.high) == (10, 10, 10)
    assert 0 < found.p < 0.005 and found.is_most
    same = bootstrap([1, 2] * 20, [1, 2] * 20, [5] * 40, speakers(40))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert not same.is_most


def test_a_bound_of_p_is_printed_as_a_bound():
    bound, plain, tiny = (
        Bootstrap(1.0, 0.5, 2.0, p, is_most)
        for p, is_most in ((0.013, True), (0.013, False), (1e-5, True))
    )
    for test, text in ((bound, "≤0.013"), (plain, "0.013"), (tiny, "<0.001")):
        pair = SystemPair("a", "b", "ours", "en", "cv", 9, 9, 2, 1, test, test, mapsswe([]), ())
        (row,) = pairs_grid(("a", "b", "ours"), [pair]).rows
        assert [cell.text for cell in row].count(text) == 2


def test_the_interval_of_many_speakers_is_normal():
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 30, 2000)
    first, second = rng.binomial(tokens, 0.2), rng.binomial(tokens, 0.19)
    found = bootstrap(first, second, tokens, speakers(2000))
    rest = (first - second) - tokens * (first - second).sum() / tokens.sum()
    deviation = 100 * math.sqrt((rest**2).sum()) / tokens.sum()
    assert found.difference == pytest.approx(100 * (first - second).sum() / tokens.sum())
    assert found.low == pytest.approx(found.difference - 1.96 * deviation, abs=0.3 * deviation)
    assert found.high == pytest.approx(found.difference + 1.96 * deviation, abs=0.3 * deviation)
    p = math.erfc(abs(found.difference) / deviation / math.sqrt(2))
    assert found.p == pytest.approx(p, abs=0.05)


def test_speakers_are_resampled_with_a_fixed_seed():
    first, second = [9, 0, 0, 1, 2, 3], [0, 1, 0, 0, 2, 0]
    tokens, spoken = [10, 20, 30, 40, 20, 10], speakers(6)
    found = bootstrap(first, second, tokens, spoken)
    assert found == bootstrap(first, second, tokens, spoken)
    assert found != bootstrap(first, second, tokens, spoken, seed=1)
    # All utterances of a speaker are drawn together, in any order.
    apart = [4, 0, 5, 0, 1, 2, 3], [0, 1, 0, 0, 0, 2, 0], [5, 20, 5, 30, 40, 20, 10]
    assert bootstrap(*apart, "abacdef") == bootstrap(first, second, tokens, "abcdef")
    # Swapping the systems mirrors the interval.
    turned = bootstrap(second, first, tokens, spoken)
    assert (turned.low, turned.high, turned.p) == pytest.approx((-found.high, -found.low, found.p))


@pytest.mark.parametrize("count", [6, 8, 12, 40])
def test_few_speakers_with_many_words_do_not_look_certain(count):
    """Equal systems with random effects of speakers differ significantly in 5 % of the tests."""
    rng = np.random.default_rng(1)
    surest = outside = 0
    for _ in range(300):
        tokens = rng.integers(200, 600, count)
        effect = rng.normal(0, 30, count).round().astype(int)
        found = bootstrap(20 + effect, [20] * count, tokens, range(count))
        surest += found.p < 0.05
        outside += not found.low <= 0 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert 5 <= surest <= 25
    assert 5 <= outside <= 25


def test_draws_with_only_empty_references_are_skipped():
    found = bootstrap([1, 3, 0, 0, 0, 0], [0] * 6, [10, 0, 0, 0, 0, 0], "abcdef")
    assert found.difference == 40
    assert math.isfinite(found.low) and found.low == pytest.approx(10)


def test_five_speakers_are_too_few():
    found = bootstrap([2, 1] * 5, [0, 1] * 5, [6, 4] * 5, "abcdeabcde")
    assert found.difference == 20
    assert all(map(math.isnan, (found.low, found.high, found.p)))


def words(text: str, other: str) -> tuple[int, ...]:
    return slots(align(text.split(), other.split()))


def test_slots_locate_errors():
    #                              a      b      c
    assert words("a b c", "a b c") == (0, 0, 0, 0, 0, 0, 0)
    assert words("a b c", "x a y c z") == (1, 0, 0, 1, 0, 0, 1)
    assert words("", "x y") == (2,)


def test_two_words_right_in_both_systems_separate_segments():
    spoken = "a b c d e f g h"
    first, second = words(spoken, "x b c d e f g x"), words(spoken, "a b c d e f g h")
    assert segments(first, second) == [(1, 0), (1, 0)]
    # One right word does not, nor two of which one system has one wrong.
    assert segments(words(spoken, "x b x d e f g h"), second) == [(2, 0)]
    assert segments(words(spoken, "x b c x e f g h"), words(spoken, "a x c d e f g h")) == [(2, 1)]
    # Two words with an insertion between them do not.
    assert segments(words(spoken, "x b i c x e f g h"), second) == [(3, 0)]
    assert segments(words(spoken, f"{spoken} i"), second) == [(1, 0)]
    assert segments(second, second) == []


def test_mapsswe_of_equal_and_constantly_different_systems():
    right, wrong = words("a b c", "a b c"), words("a b c", "x b c")
    assert mapsswe([(right, right)] * 3) == (mapsswe([]))
    assert mapsswe([(wrong, wrong)] * 3).p == 1
    always = mapsswe([(wrong, right)] * 10)
    assert (always.segments, always.z, always.p) == (10, math.inf, 0)
    assert mapsswe([(right, wrong)] * 10).z == -math.inf
    few = mapsswe([(wrong, right)] * 9)
    assert few.segments == 9
    assert math.isnan(few.z) and math.isnan(few.p)


def corrupted(text: list[str], vocabulary: list[str], rate: float, rng: random.Random) -> list[str]:
    recognised = []
    for word in text:
        kind = rng.random()
        if kind < rate / 3:
            continue
        recognised.append(rng.choice(vocabulary) if kind < 2 * rate / 3 else word)
        if kind > 1 - rate / 3:
            recognised.append(rng.choice(vocabulary))
    return recognised


@pytest.mark.parametrize("seed", range(4))
def test_mapsswe_is_that_of_nists_program(tmp_path, seed):
    sclite = find_sclite()
    if sclite is None or not (sclite.parent / "sc_stats").is_file():
        pytest.skip("NIST's sclite and sc_stats are not installed")
    rng = random.Random(seed)
    vocabulary = [f"w{n}" for n in range(rng.choice([3, 6, 20]))]
    spoken = [[rng.choice(vocabulary) for _ in range(rng.randint(1, 25))] for _ in range(40)]
    systems = {
        name: [corrupted(text, vocabulary, rate, rng) for text in spoken]
        for name, rate in (("one", 0.15), ("two", 0.25))
    }
    aligned = ""
    for name, recognised in systems.items():
        lines = [
            ResultLine(f"u{n}", f"s{n % 3}", align(*texts))
            for n, texts in enumerate(zip(spoken, recognised, strict=True))
        ]
        write_result(lines, tmp_path / name, sclite)
        files = ["-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", name]
        options = ["-i", "rm", "-s", "-o", "sgml", "stdout"]
        done = subprocess.run(
            [sclite, *files, *options], cwd=tmp_path / name, capture_output=True, text=True
        )
        aligned += done.stdout
    command = [sclite.parent / "sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "out", "-O", "."]
    subprocess.run(command, cwd=tmp_path, input=aligned, text=True, capture_output=True, check=True)
    report = (tmp_path / "out.stats.mapsswe").read_text()
    expected = re.search(r"# segs: (\d+).*\(Z Stat: +([-\d.]+)\)", report)
    found = mapsswe(
        (slots(align(text, one)), slots(align(text, two)))
        for text, one, two in zip(spoken, *systems.values(), strict=True)
    )
    assert found.segments == int(expected[1])
    assert found.z == pytest.approx(float(expected[2]), abs=6e-4)
    assert found.p == pytest.approx(math.erfc(abs(float(expected[2])) / math.sqrt(2)), abs=1e-3)
