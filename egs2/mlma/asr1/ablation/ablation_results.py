"""Results of ablation.py: errors by speaker, tables and plot."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ablation_grid import MODEL, RECIPE, Row
from common import machine, save

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare.statistics import Bootstrap, bootstrap
from espnet_mlma.evaluation.report.training import read_epochs
from espnet_mlma.evaluation.score.utterances import ScoredUtterance, score_set

DECODING = f"decode_ctc_best_path_asr_model_{MODEL}"
UNITS = ("WER", "CER")
BY_SPEAKER = ", errors by speaker"  # ends the title of their table in the JSON file
HEADER = ("row", "updates", "seeds", "WER (%)", "CER (%)", "each seed's", "twin")
TWIN = HEADER.index("twin")
HEADER += ("CER less its (95 %)", "relative (%)", "validation CER (%)", "language right (%)")
PAIRS_HEADER = ("row", "other", "test sets", "seeds", "CER less the other's (95 %)", "relative (%)")
MARKS = (("#0072B2", "o"), ("#D55E00", "s"))  # distinct without colours too


@dataclass(frozen=True)
class Seed:
    """Errors of one training of a row on the test sets.

    Attributes:
        errors: by unit (`WER` or `CER`), of speakers sorted by name, (speakers,).
        sizes: by unit, reference words or characters, (speakers,).
        language: fraction of utterances whose language was recognised.
        validation: lowest CER of an epoch on the validation sets, in per cent.
        commit: of the code that trained it.
    """

    errors: Mapping[str, np.ndarray]
    sizes: Mapping[str, np.ndarray]
    language: float
    validation: float
    commit: str


def score(corpora: Sequence[str], row: Row, seed: int) -> Seed:
    """Score a finished training on the test sets of corpora."""
    folder = RECIPE / row.folder(seed)
    utterances = list(_utterances(corpora, folder / DECODING))
    _, speaker = np.unique([u.speaker for u in utterances], return_inverse=True)

    def by_speaker(counts: Iterable[int]) -> np.ndarray:
        return np.bincount(speaker, weights=list(counts)).astype(np.int64)

    errors, sizes = {}, {}
    for unit, attribute in zip(UNITS, ("word_errors", "char_errors"), strict=True):
        counts = [getattr(utterance, attribute) for utterance in utterances]
        errors[unit] = by_speaker(count.total for count in counts)
        sizes[unit] = by_speaker(count.reference for count in counts)
    language = float(np.mean([u.recognised_lang == u.lang for u in utterances]))
    commit = (folder / "done").read_text().split()[-1]
    return Seed(errors, sizes, language, _validation(folder), commit)


def _utterances(corpora: Sequence[str], decoded: Path) -> Iterator[ScoredUtterance]:
    for corpus in corpora:
        for folder in sorted(decoded.glob(f"test_{corpus}_*")):
            yield from score_set(RECIPE / "dump" / "raw" / folder.name, folder)


def _validation(experiment: Path) -> float:
    """Return the lowest validation CER of an epoch in per cent; NaN without a log."""
    epochs = read_epochs(experiment).values()
    return min((100 * epoch["valid"]["cer_ctc"] for epoch in epochs), default=math.nan)


def collect(
    corpora: Sequence[str], rows: Sequence[Row], known: Mapping[tuple[str, int], Seed]
) -> dict[tuple[str, int], Seed]:
    """Score finished trainings; add known results of others.

    Args:
        corpora: their test sets count.
        rows: of the grid.
        known: results on the same sets, by row and seed.

    Returns:
        Results by row and seed, in the order of the grid.
    """
    seeds = {}
    for row in rows:
        for seed in row.seeds:
            if row.is_done(seed):
                seeds[row.name, seed] = score(corpora, row, seed)
            elif (row.name, seed) in known:
                seeds[row.name, seed] = known[row.name, seed]
    return seeds


def rates(seeds: Sequence[Seed], unit: str) -> list[float]:
    """Return the error rate of each seed in per cent."""
    return [100 * seed.errors[unit].sum() / seed.sizes[unit].sum() for seed in seeds]


def against(seeds: Sequence[Seed], twins: Sequence[Seed], unit: str) -> Bootstrap:
    """Compare the error rate, mean of the seeds, with that of the twin."""
    first, second = (sum(seed.errors[unit] for seed in of) for of in (seeds, twins))
    ours, theirs, sizes = len(seeds), len(twins), seeds[0].sizes[unit]
    # Counts stay integers: each side is scaled by the number of the other's seeds.
    return bootstrap(first * theirs, second * ours, sizes * ours * theirs, range(len(sizes)))


def table(rows: Sequence[Row], scores: Mapping[str, Sequence[Seed]]) -> list[list[object]]:
    """Return a line for each row with results."""
    lines = []
    for row in (row for row in rows if row.name in scores):
        seeds, twins = scores[row.name], scores.get(row.twin)
        cells = [row.name, row.updates, len(seeds)]
        cells += [f"{np.mean(rates(seeds, unit)):.1f}" for unit in UNITS]
        cells += [" ".join(f"{rate:.1f}" for rate in rates(seeds, "CER"))]
        if twins is None:
            cells += ["", "", ""]
        else:
            cells += [row.twin, *_difference(seeds, twins)]
        cells += [f"{np.mean([seed.validation for seed in seeds]):.1f}"]
        cells += [f"{100 * np.mean([seed.language for seed in seeds]):.1f}"]
        lines.append(cells)
    return lines


def _difference(seeds: Sequence[Seed], others: Sequence[Seed]) -> tuple[str, str]:
    """Format the difference of CERs in points with its interval, and in per cent of the other."""
    gain = against(seeds, others, "CER")
    relative = 100 * gain.difference / np.mean(rates(others, "CER"))
    interval = f"{gain.difference:+.1f}"
    if math.isfinite(gain.low):
        interval += f" ({gain.low:+.1f} to {gain.high:+.1f})"
    return interval, f"{relative:+.1f}"


def pairs_table(
    pairs: Iterable[Sequence[str]], scores: Mapping[str, Mapping[str, Sequence[Seed]]]
) -> list[list[object]]:
    """Return a line for each pair of rows with results and each choice of test sets.

    Args:
        pairs: names of two rows.
        scores: by choice of test sets and row.
    """
    return [
        [name, other, sets, f"{len(of[name])}, {len(of[other])}", *_difference(of[name], of[other])]
        for name, other in pairs
        for sets, of in scores.items()
        if name in of and other in of
    ]


def merge_lines(
    lines: Sequence[list[object]], kept: Mapping[str, list[object]]
) -> dict[str, list[object]]:
    """Merge lines of the table with earlier ones whose results are not here any more.

    Args:
        lines: of `table`.
        kept: earlier lines. A difference to the twin stays if the figures of both are unchanged.

    Returns:
        Lines by row.
    """
    found = {line[0]: line for line in lines}
    changed = {name for name in found.keys() & kept if found[name][:TWIN] != kept[name][:TWIN]}
    for name, line in kept.items():
        is_as_it_was = changed.isdisjoint((name, line[TWIN]))
        if name not in found:
            found[name] = line if is_as_it_was else [*line[:TWIN], "", "", "", *line[TWIN + 3 :]]
        elif is_as_it_was and not found[name][TWIN]:
            found[name] = line
    return found


def plot(tables: Mapping[str, Sequence[Sequence[object]]], file: Path) -> None:
    """Plot the CER of each row minus that of its twin, with intervals.

    Args:
        tables: lines by title, at most as many as `MARKS`.
        file: of the plot.
    """
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "ablation"  # equal figures give equal files
    pairs = {line[0]: line[TWIN] for lines in tables.values() for line in lines if line[TWIN]}
    places = {name: place for place, name in enumerate(reversed(pairs))}
    figure, axes = plt.subplots(figsize=(8, 1 + 0.5 * len(pairs)), layout="constrained")
    axes.axvline(0, color="#888888", linewidth=1)
    for number, (title, lines) in enumerate(tables.items()):
        color, mark = MARKS[number]
        axes.plot([], [], mark, color=color, label=title)
        for line in (line for line in lines if line[TWIN]):
            difference, *interval = map(float, re.findall(r"[+-][\d.]+", line[TWIN + 1]))
            place = places[line[0]] - 0.25 * number
            axes.plot(interval, [place] * len(interval), color=color, linewidth=2)
            axes.plot(difference, place, mark, color=color, markersize=5)
    # Linear up to 10 points, so that one failed row does not compress the others.
    axes.set_xscale("symlog", linthresh=10, linscale=3)
    axes.set_xticks([-50, -10, -5, -2, 0, 2, 5, 10, 50])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.04)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    labels = [f"{name}\nless {pairs[name]}" for name in places]
    axes.set_yticks(range(len(pairs)), labels, fontsize="small")
    figure.supxlabel(
        "difference of the CER (percentage points, above 10 logarithmic)", fontsize="medium"
    )
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


@dataclass(frozen=True)
class EarlierResults:
    """Results of earlier runs in a JSON file, of other machines too.

    Attributes:
        seeds: by row and seed.
        lines: of the table by row, also of rows without seeds.
    """

    seeds: Mapping[tuple[str, int], Seed]
    lines: Mapping[str, list[object]]


def read_results(file: Path | None, title: str) -> EarlierResults:
    """Read a file written by `save_seeds` and `report`; empty without a file."""
    if file is None or not file.exists():
        return EarlierResults({}, {})
    try:
        known = json.loads(file.read_text())
    except ValueError as error:
        raise MlmaError(f"{file}: not JSON ({error}); give another --json") from None
    lines = {line[0]: line for line in known[title]["rows"]} if title in known else {}
    if title + BY_SPEAKER not in known:
        return EarlierResults({}, lines)
    (*_, words, letters), *rows = known[title + BY_SPEAKER]["rows"]
    sizes = _counts(words, letters)
    seeds = {
        (name, seed): Seed(_counts(words, letters), sizes, language, validation, commit)
        for name, seed, commit, validation, language, words, letters in rows
    }
    return EarlierResults(seeds, lines)


def _counts(*texts: str) -> dict[str, np.ndarray]:
    return {unit: np.array(text.split(), int) for unit, text in zip(UNITS, texts, strict=True)}


def save_seeds(file: Path, title: str, seeds: Mapping[tuple[str, int], Seed]) -> None:
    """Write errors by speaker, to rebuild the table and compare later rows."""

    def counts(of: Mapping[str, np.ndarray]) -> list[str]:
        return [" ".join(map(str, of[unit])) for unit in UNITS]

    rows = [["(reference)", "", "", "", "", *counts(next(iter(seeds.values())).sizes)]]
    for (name, number), seed in seeds.items():
        about = [seed.commit, round(seed.validation, 3), round(seed.language, 5)]
        rows.append([name, number, *about, *counts(seed.errors)])
    header = ["row", "seed", "commit", "validation CER (%)", "language right"]
    header += ["word errors by speaker", "character errors by speaker"]
    save(file, title + BY_SPEAKER, header, rows, machine())
