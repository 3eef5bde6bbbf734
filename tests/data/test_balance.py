"""The drawn batches: their mix, lengths, order, and the same on all ranks."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from espnet_mlma.data.balance import BalancedDraw, Options
from espnet_mlma.data.clips import Clips, read_clips
from espnet_mlma.errors import MlmaError

RATE = 16000
# Language and corpus -> clips and mean seconds.
CELLS = {
    ("de", "cv"): (3000, 5.4),
    ("de", "mls"): (2000, 15.0),
    ("en", "ls"): (2500, 12.3),
    ("nl", "cv"): (300, 5.4),
    ("nl", "vp"): (40, 9.5),
}


def made(cells=CELLS, seed: int = 0) -> Clips:
    generator = np.random.default_rng(seed)
    sizes = [size for size, _ in cells.values()]
    seconds = [
        np.clip(generator.normal(mean, 0.3 * mean, size), 1.0, 29.9)
        for size, mean in cells.values()
    ]
    lengths = (np.concatenate(seconds) * RATE).astype(np.int64)
    names = [f"{i:05d}" for i in range(sum(sizes))]
    return Clips(
        np.frombuffer("".join(names).encode(), np.uint8),
        5 * np.arange(1, len(names) + 1),
        lengths,
        list(cells),
        np.concatenate([[0], np.cumsum(sizes)]),
        "digest",
    )


def options(**changed) -> Options:
    given: dict[str, Any] = {"batch_bins": 13_600_000, "max_batch_size": 256}
    return Options(**given | changed)


def batches(draw: BalancedDraw, epoch: int) -> list[np.ndarray]:
    found = draw.epoch(epoch)
    return [found.indices(number) for number in range(len(found))]


def p_value(*counts: np.ndarray) -> float:
    """By chi-squared, of the hypothesis that the counts come from one distribution."""
    _, p, *_ = chi2_contingency(counts)
    return p


def padding(clips: Clips, found: list[np.ndarray]) -> float:
    padded = sum(clips.lengths[batch].max() * len(batch) for batch in found)
    return padded / sum(clips.lengths[batch].sum() for batch in found)


@pytest.fixture(scope="module")
def clips() -> Clips:
    return made()


def test_batches_have_similar_lengths_and_the_given_size(clips):
    bins = 13_600_000
    found = batches(BalancedDraw(clips, options()), 1)
    assert sorted(chain.from_iterable(found)) == sorted(
        BalancedDraw(clips, options()).epoch(1).order
    )
    sizes = [clips.lengths[batch].max() * len(batch) for batch in found]
    assert max(sizes) <= bins
    assert np.median(sizes) > 0.97 * bins
    assert padding(clips, found) < 1.05


@pytest.mark.parametrize("iterations", [1, 7, 60, 500])
@pytest.mark.parametrize("size", [1, 4])
def test_an_epoch_has_its_number_of_full_batches(clips, iterations, size):
    draw = BalancedDraw(clips, options(iterations=iterations, min_batch_size=size))
    for epoch in (1, 2, 9):
        found = batches(draw, epoch)
        assert len(found) == iterations
        assert min(map(len, found)) >= size
        assert max(clips.lengths[batch].max() * len(batch) for batch in found) <= 13_600_000
    if iterations >= 60:
        filled = np.mean([clips.lengths[batch].max() * len(batch) for batch in found])
        assert filled > 0.85 * 13_600_000
        assert padding(clips, found) < 1.15


def test_an_epoch_draws_only_what_it_uses(clips):
    few = BalancedDraw(clips, options(iterations=60)).epoch(1)
    assert sum(few.lasts - few.firsts) == len(few.order)
    assert (
        len(few.order) * 2 < len(BalancedDraw(clips, options(iterations=120)).epoch(1).order) * 1.1
    )


def test_the_batch_sizes_of_the_options_hold(clips):
    found = batches(BalancedDraw(clips, options(batch_bins=2**40, max_batch_size=20)), 1)
    assert Counter(map(len, found)).most_common(1)[0][0] == 20
    assert max(map(len, found)) == 20
    found = batches(BalancedDraw(clips, options(batch_bins=1, min_batch_size=3)), 1)
    assert set(map(len, found)) <= {3, 4, 5}
    kept = batches(BalancedDraw(clips, options(batch_bins=2**40, drop_last=True)), 1)
    assert set(map(len, kept)) == {256}


@pytest.mark.parametrize("iterations", [40, None])
def test_each_clip_is_drawn_once_before_any_of_its_cell_is_drawn_twice(clips, iterations):
    draw = BalancedDraw(clips, options(iterations=iterations))
    heard = Counter()
    repeated = set()
    for epoch in range(1, 13):
        heard.update(chain.from_iterable(batch.tolist() for batch in batches(draw, epoch)))
        for cell, (first, last) in enumerate(zip(clips.starts, clips.starts[1:], strict=False)):
            times = [heard[clip] for clip in range(first, last)]
            assert max(times) - min(times) <= 1
            if max(times) > 1:
                repeated.add(cell)
    assert {3, 4} <= repeated  # the corpora of Dutch, drawn more often than others


def test_the_passes_over_a_cell_have_different_orders(clips):
    draw = BalancedDraw(clips, options())
    first, second = (draw._of_cell(4, 40 * i, 40 * (i + 1)) for i in range(2))
    assert sorted(first) == sorted(second)
    assert list(first) != list(second)


def test_batches_are_shuffled_and_differ_between_epochs_and_seeds(clips):
    draw = BalancedDraw(clips, options())
    longest = [clips.lengths[batch].max() for batch in batches(draw, 1)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2
    firsts = [
        batches(BalancedDraw(clips, options(seed=seed)), epoch)[0].tolist()
        for seed, epoch in ((0, 1), (0, 2), (1, 1))
    ]
    assert firsts[0] not in firsts[1:] and firsts[1] != firsts[2]


def test_the_mix_is_that_of_espnets_sampler(tmp_path):
    """Counts by cell agree by chi-squared, and do not for other exponents."""
    from espnet2.samplers.category_power_sampler import CategoryDatasetPowerSampler

    sizes = {("de", "cv"): 900, ("de", "mls"): 500, ("en", "cv"): 400, ("nl", "mls"): 60}
    known = made({cell: (size, 5 + 10 * (cell[1] == "mls")) for cell, size in sizes.items()})
    names = [known.cells[cell] for cell in known.cell_of(np.arange(len(known)))]
    rows = {known.id(i): (known.lengths[i], *names[i]) for i in range(len(known))}
    for column, name in enumerate(("speech_shape", "utt2dataset", "utt2category")):
        lines = [f"{id_} {row[column]}\n" for id_, row in sorted(rows.items())]
        (tmp_path / name).write_text("".join(lines))
    for column, name in ((1, "dataset2utt"), (2, "category2utt")):
        kinds = sorted({row[column] for row in rows.values()})
        ids = {kind: [id_ for id_, row in rows.items() if row[column] == kind] for kind in kinds}
        (tmp_path / name).write_text("".join(f"{k} {' '.join(of)}\n" for k, of in ids.items()))

    def count(found) -> np.ndarray:
        of = Counter(rows[id_][1:] for id_ in chain.from_iterable(found))
        return np.array([of[cell] for cell in sizes])

    espnets = count(
        CategoryDatasetPowerSampler(
            batch_bins=13_600_000,
            shape_files=[str(tmp_path / "speech_shape")],
            category_upsampling_factor=0.7,
            dataset_upsampling_factor=0.4,
            dataset_scaling_factor=8,
            category2utt_file=str(tmp_path / "category2utt"),
            dataset2utt_file=str(tmp_path / "dataset2utt"),
            utt2dataset_file=str(tmp_path / "utt2dataset"),
        )
    )
    clips = read_clips(tmp_path / "speech_shape", tmp_path)

    def ours(language: float, corpus: float) -> np.ndarray:
        chosen = options(language_exponent=language, corpus_exponent=corpus, scaling=8)
        return count(BalancedDraw(clips, chosen).epoch(1))

    assert ours(0.4, 0.7).sum() == pytest.approx(espnets.sum(), rel=0.01)
    assert p_value(ours(0.4, 0.7), espnets) > 0.01
    for others in ((0.5, 0.7), (0.4, 0.4), (0.7, 0.4)):
        assert p_value(ours(*others), espnets) < 0.001


def test_the_mix_is_the_same_over_epochs_with_few_batches(clips):
    whole = BalancedDraw(clips, options())
    few = BalancedDraw(clips, options(iterations=3))
    drawn = Counter(chain.from_iterable(few.epoch(epoch).order.tolist() for epoch in range(1, 201)))
    counts = np.bincount(clips.cell_of(np.array(list(drawn.elements()))))
    assert counts / counts.sum() == pytest.approx(whole.probabilities, abs=0.001)


def test_an_interrupted_epoch_continues_with_the_same_batch(clips):
    draw = BalancedDraw(clips, options(iterations=50))
    whole = list(draw.epoch(3))
    state = json.loads(json.dumps(draw.epoch(3).state(17)))
    again = BalancedDraw(clips, options(iterations=50)).resume(state)
    assert list(again) == whole[17:] and len(again) == 33
    state = again.state(10)
    assert list(draw.resume(state)) == whole[27:]
    assert list(draw.resume(draw.epoch(3).state(50))) == []


def test_a_position_of_other_data_or_beyond_the_end_is_refused(clips):
    draw = BalancedDraw(clips, options(iterations=50))
    state = draw.epoch(3).state(17)
    with pytest.raises(MlmaError, match="epoch 3 began with other clips"):
        draw.resume(state | {"clips": "another"})
    with pytest.raises(MlmaError, match="batch 51 of epoch 3: it has 50"):
        draw.epoch(3, start=51)


def test_ranks_take_disjoint_parts_of_the_same_batches(clips):
    draw = BalancedDraw(clips, options(min_batch_size=3))
    whole = list(draw.epoch(2))
    parts = [list(draw.epoch(2, rank=rank, ranks=3)) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert all(shares)
        assert sorted(chain.from_iterable(shares)) == sorted(batch)
        assert [batch[rank::3] for rank in range(3)] == shares


def test_a_batch_smaller_than_the_number_of_ranks_is_an_error(clips):
    with pytest.raises(MlmaError, match="a batch of 2 clips for 3 processes"):
        BalancedDraw(clips, options(max_batch_size=2)).epoch(1, ranks=3)


_PRINT = """
import sys, hashlib
from pathlib import Path
from espnet_mlma.data.clips import open_clips
from espnet_mlma.data.balance import BalancedDraw, Options
clips = open_clips(Path("speech_shape"), Path("."))
found = list(BalancedDraw(clips, Options(2_000_000, iterations=9, seed=3)).epoch(2))
print(hashlib.sha256(repr(found).encode()).hexdigest())
"""


def test_it_does_not_depend_on_the_hash_seed(tmp_path):
    for name in ("speech_shape", "utt2dataset", "utt2category"):
        value = {"speech_shape": lambda i: 16000 + i, "utt2dataset": lambda i: f"l{i % 5}"}
        of = value.get(name, lambda i: f"c{i % 3}")
        (tmp_path / name).write_text("".join(f"u{i:04d} {of(i)}\n" for i in range(900)))
    root = Path(__file__).resolve().parents[2]
    printed = set()
    for seed in ("0", "1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", _PRINT],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        printed.add(done.stdout)
    assert len(printed) == 1 and len(printed.pop()) == 65


def test_a_clip_longer_than_a_batch_is_alone():
    clips = made({("en", "ls"): (200, 10.0)})
    clips.lengths[7] = 20_000_000
    found = batches(BalancedDraw(clips, options()), 1)
    assert [batch.tolist() for batch in found if 7 in batch] == [[7]]


@pytest.mark.parametrize(
    "cells", [{("en", "ls"): (1, 5.0)}, {("en", "a"): (1, 5.0), ("it", "b"): (3, 9.0)}]
)
def test_sets_of_few_clips(cells):
    clips = made(cells)
    draw = BalancedDraw(clips, options())
    assert sum(
        map(len, chain.from_iterable(batches(draw, e) for e in range(1, 11)))
    ) == pytest.approx(10 * len(clips), abs=1)
    assert len(batches(BalancedDraw(clips, options(iterations=5)), 4)) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_bins": 0},
        {"iterations": 0},
        {"max_batch_size": 0},
        {"scaling": float("nan")},
        {"corpus_exponent": float("inf")},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(MlmaError, match=f"{next(iter(wrong))}: .*; give a"):
        options(**wrong)
