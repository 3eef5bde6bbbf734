"""Train and score small models that differ in one thing, and say by how much.

    python benchmarks/ablation.py --db_root CORPORA [--rows NAME ...] [--jobs 2] [--json FILE]

The rows are those of ablation.yaml. Each is trained and decoded by the recipe on the data of stages
1 to 4, which are made if they are not there, and lies below exp/ablation of the recipe; what is
done stays done, and a run that was stopped goes on when it is given again. Rates are those of all
utterances of the test sets together, mean of the seeds; intervals are those of resampled speakers,
of the difference to the twin likewise. The language is guessed from the text, where no token says
it. The validation CER is that of the best epoch, before averaging. What the file of --json holds of
runs elsewhere stays in the table.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from common import ROOT, arguments, machine, report, save

from espnet_mlma.compare.statistics import Bootstrap, bootstrap
from espnet_mlma.report.training import read_epochs
from espnet_mlma.score.align import count_errors
from espnet_mlma.score.join import Utterance, characters, join

RECIPE = ROOT / "egs2" / "mlma" / "asr1"
EXPERIMENTS = Path("exp") / "ablation"  # below the recipe
EPOCHS = 10
MODEL = "valid.cer_ctc.ave"
DECODING = f"decode_ctc_best_path_asr_model_{MODEL}"
UNITS = ("WER", "CER")
BY_SPEAKER = ", errors by speaker"  # ends the title of their table in the JSON file
VARIANTS = "conmamba_"  # encoders of variants.py; they recognise as conmamba does


@dataclass(frozen=True)
class Row:
    """A line of the grid.

    Attributes:
        name: unique.
        updates: of the parameters.
        seeds: one training each.
        config: the training configuration.
        recipe: options of run.sh.
        twin: the row to compare with; None: none.
        first: a mixture, and the row whose encoder is this one's start once it is trained on that
            mixture; one training with that row's first seed for all that start from it.
    """

    name: str
    updates: int
    seeds: tuple[int, ...]
    config: Mapping[str, object]
    recipe: tuple[str, ...] = ()
    twin: str | None = None
    first: tuple[str, Row] | None = None

    def folder(self, seed: int) -> Path:
        """Of the experiment, below the recipe."""
        letters = "".join(c if c.isalnum() else "_" for c in self.name.lower())
        return EXPERIMENTS / f"{letters}_seed{seed}"

    def start(self) -> Path:
        """Of the training before this one, below the recipe."""
        mixture, row = self.first
        folder = row.folder(row.seeds[0])
        return folder.with_name(f"{folder.name}_{mixture}")


def read_grid(path: Path) -> tuple[dict, list[Row]]:
    """The grid's own settings, and its rows with their whole configurations."""
    grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = yaml.safe_load((ROOT / grid["base"]).read_text(encoding="utf-8"))
    rows: dict[str, Row] = {}
    for name, given in grid.pop("rows").items():
        updates = grid["budgets"][given["budget"]]
        config = _sized(_merged(base, given.get("config", {})), updates)
        recipe, seeds = tuple(given.get("recipe", "").split()), tuple(given["seeds"])
        first = given.get("first")
        if first is not None:
            first = first["mixture"], rows[first["row"]]
        rows[name] = Row(name, updates, seeds, config, recipe, given.get("twin"), first)
    return grid, list(rows.values())


def _merged(base: Mapping, changes: Mapping) -> dict:
    """`base` with some of its values changed, inner tables likewise."""
    base = dict(base)
    encoder = str(changes.get("encoder", "conmamba"))
    if not encoder.startswith("conmamba"):
        base.pop("encoder_conf")
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _merged(base[key], value) if both else value
    return base


def _sized(config: dict, updates: int) -> dict:
    """A configuration of so many updates, with its schedule."""
    schedule = config["scheduler_conf"] | {"max_steps": updates}
    steps = {"max_epoch": EPOCHS, "num_iters_per_epoch": updates // EPOCHS}
    return config | steps | {"scheduler_conf": schedule}


def run(recipe: Recipe, row: Row, seed: int, first: Future | None) -> None:
    """Train, decode and score one row with one seed, as far as that is not done.

    Args:
        recipe: on the grid's mixture.
        row: one of the grid.
        seed: of its training.
        first: what `row.first` asks for, under way or done.

    Raises:
        RecipeError: the recipe failed.
    """
    folder = row.folder(seed)
    if is_done(row, seed):
        return
    more = []
    if first is not None:
        first.result()
        more = ["--pretrained_model", row.start() / f"{MODEL}.pth:encoder:encoder"]
    started = time.perf_counter()
    fit(recipe, row, seed, folder, more)
    _decode_as_conmamba(RECIPE / folder / "config.yaml")
    recipe([12, 13], [*_options(row, folder), "--asr_exp", folder], folder)
    seconds, commit = time.perf_counter() - started, machine()["commit"]
    (RECIPE / folder / "done").write_text(f"{seconds:.0f} s at {commit}\n")


def is_done(row: Row, seed: int) -> bool:
    """Whether it is trained, decoded and scored."""
    return (RECIPE / row.folder(seed) / "done").exists()


def fit(recipe: Recipe, row: Row, seed: int, folder: Path, more: Iterable[object] = ()) -> None:
    """Train a row's model into `folder`, or go on with it."""
    (RECIPE / folder).mkdir(parents=True, exist_ok=True)
    config = RECIPE / folder / "ablation.yaml"
    config.write_text(yaml.safe_dump(dict(row.config)), encoding="utf-8")
    options = [*_options(row, folder), "--asr_args", f"--seed {seed}", "--asr_exp", folder, *more]
    recipe([11, 11], options, folder)


def _options(row: Row, folder: Path) -> list[object]:
    options = [*row.recipe, "--asr_config", RECIPE / folder / "ablation.yaml", "--ngpu", 0]
    if str(row.config["encoder"]).startswith(VARIANTS):
        options += ["--python", f"python3 {ROOT / 'benchmarks' / 'variants.py'}"]
    return options


def prepare(grid: dict, rows: Iterable[Row], db_root: Path, threads: int) -> None:
    """Stages 1 to 4 once a mixture, and 5 to 10 for each way of cutting texts into tokens.

    Raises:
        RecipeError: one failed.
    """
    (RECIPE / EXPERIMENTS).mkdir(parents=True, exist_ok=True)
    wanted = {(grid["mixture"], row.recipe) for row in rows}
    wanted |= {(row.first[0], row.first[1].recipe) for row in rows if row.first is not None}
    for mixture, options in sorted(wanted):
        letters = "_".join(options).replace("-", "")
        for name, stages in ((mixture, [1, 4]), (f"{mixture}_tokens{letters}", [5, 10])):
            done = RECIPE / EXPERIMENTS / f"{name}.done"
            if not done.exists():
                recipe = Recipe(mixture, db_root, threads)
                config = ["--asr_config", ROOT / grid["base"]]
                recipe(stages, [*options, *config], EXPERIMENTS / name)
                done.touch()


class RecipeError(Exception):
    """A stage failed; names the log."""


@dataclass(frozen=True)
class Recipe:
    """run.sh on a mixture."""

    mixture: str
    db_root: Path
    threads: int

    def __call__(self, stages: Sequence[int], options: Iterable[object], folder: Path) -> None:
        """Run the stages from the first to the last; what they print goes to run.log of a folder.

        Raises:
            RecipeError: one failed.
        """
        command = [RECIPE / "run.sh", "--mixture", self.mixture, "--db_root", self.db_root]
        command += ["--stage", stages[0], "--stop_stage", stages[1], *options]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        (RECIPE / folder).mkdir(parents=True, exist_ok=True)
        log = RECIPE / folder / "run.log"
        with log.open("a") as file:
            done = subprocess.run(
                list(map(str, command)), env=environment, stdout=file, stderr=file
            )
        if done.returncode:
            last = log.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
            raise RecipeError(f"the recipe failed: {last}; see {log}")


def _decode_as_conmamba(config: Path) -> None:
    """Put `conmamba` for a variant of it: alone an utterance has no padding to leak."""
    written = yaml.safe_load(config.read_text(encoding="utf-8"))
    if str(written["encoder"]).startswith(VARIANTS):
        config.write_text(yaml.safe_dump(written | {"encoder": "conmamba"}), encoding="utf-8")


@dataclass(frozen=True)
class Seed:
    """What one training of a row got wrong on the test sets.

    Attributes:
        errors: by unit, `WER` or `CER`, of each speaker in the order of their names, (speakers,).
        sizes: by unit, reference words or characters, (speakers,).
        language: share of the utterances taken for their language.
        validation: lowest CER of an epoch on the validation sets, in per cent.
        commit: what it was trained with.
    """

    errors: Mapping[str, np.ndarray]
    sizes: Mapping[str, np.ndarray]
    language: float
    validation: float
    commit: str


def score(grid: dict, row: Row, seed: int) -> Seed:
    """Of a training that is done."""
    folder = RECIPE / row.folder(seed)
    utterances = list(_utterances(grid, folder / DECODING))
    _, speaker = np.unique([u.speaker for u in utterances], return_inverse=True)

    def by_speaker(counts: Iterable[int]) -> np.ndarray:
        return np.bincount(speaker, weights=list(counts)).astype(np.int64)

    errors, sizes = {}, {}
    for unit, cut in zip(UNITS, (str.split, characters), strict=True):
        pairs = [(cut(u.reference), cut(u.hypothesis)) for u in utterances]
        errors[unit] = by_speaker(count_errors(*pair).total for pair in pairs)
        sizes[unit] = by_speaker(len(reference) for reference, _ in pairs)
    language = float(np.mean([u.heard == u.lang for u in utterances]))
    commit = (folder / "done").read_text().split()[-1]
    return Seed(errors, sizes, language, _validation(folder), commit)


def collect(
    grid: dict, rows: Sequence[Row], known: Mapping[tuple[str, int], Seed]
) -> dict[tuple[str, int], Seed]:
    """All that is done here or `known` from elsewhere, by row and seed in the order of the grid."""
    seeds = {}
    for row in rows:
        for seed in row.seeds:
            if is_done(row, seed):
                seeds[row.name, seed] = score(grid, row, seed)
            elif (row.name, seed) in known:
                seeds[row.name, seed] = known[row.name, seed]
    return seeds


def rates(seeds: Sequence[Seed], unit: str) -> list[float]:
    """Per cent, of each seed."""
    return [100 * seed.errors[unit].sum() / seed.sizes[unit].sum() for seed in seeds]


def against(seeds: Sequence[Seed], twins: Sequence[Seed], unit: str) -> Bootstrap:
    """The rate less that of the twin; the mean of the seeds."""
    first, second = (sum(seed.errors[unit] for seed in of) for of in (seeds, twins))
    ours, theirs, sizes = len(seeds), len(twins), seeds[0].sizes[unit]
    # Whole numbers: both sides as often as the other one has seeds.
    return bootstrap(first * theirs, second * ours, sizes * ours * theirs, range(len(sizes)))


def _validation(experiment: Path) -> float:
    """The lowest CER of an epoch on the validation sets, in per cent; nan without a log."""
    epochs = read_epochs(experiment).values()
    return min((100 * epoch["valid"]["cer_ctc"] for epoch in epochs), default=math.nan)


def _utterances(grid: dict, decoded: Path) -> Iterator[Utterance]:
    for corpus in grid["test_sets"]:
        for folder in sorted(decoded.glob(f"test_{corpus}_*")):
            yield from join(RECIPE / "dump" / "raw" / folder.name, folder / "text")


def table(rows: Sequence[Row], scores: Mapping[str, Sequence[Seed]]) -> list[list[object]]:
    """A line for each row that is done."""
    lines = []
    for row in (row for row in rows if row.name in scores):
        seeds, twins = scores[row.name], scores.get(row.twin)
        cells = [row.name, row.updates, len(seeds)]
        cells += [f"{np.mean(rates(seeds, unit)):.1f}" for unit in UNITS]
        cells += [" ".join(f"{rate:.1f}" for rate in rates(seeds, "CER"))]
        if twins is None:
            cells += ["", "", ""]
        else:
            gain = against(seeds, twins, "CER")
            relative = 100 * gain.difference / np.mean(rates(twins, "CER"))
            interval = f"{gain.difference:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"
            cells += [row.twin, interval, f"{relative:+.1f}"]
        cells += [f"{np.mean([seed.validation for seed in seeds]):.1f}"]
        cells += [f"{100 * np.mean([seed.language for seed in seeds]):.1f}"]
        lines.append(cells)
    return lines


def plot(lines: Sequence[Sequence[object]], file: Path) -> None:
    """CER of each row less that of its twin, with the interval, from the table."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "ablation"  # a plot of the same figures is the same file
    pairs = [line for line in lines if line[6]][::-1]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.5 * len(pairs)), layout="constrained")
    axes.axvline(0, color="#888888", linewidth=1)
    for place, line in enumerate(pairs):
        difference, low, high = map(float, re.findall(r"[+-][\d.]+", line[7]))
        axes.plot([low, high], [place, place], color="#0072B2", linewidth=2)
        axes.plot(difference, place, "o", color="#D55E00", markersize=5)
    # Linear up to 10 points: one row that learns nothing must not press the others into a line.
    axes.set_xscale("symlog", linthresh=10, linscale=3)
    axes.set_xticks([-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.04)
    labels = [f"{line[0]}\nless {line[6]}" for line in pairs]
    axes.set_yticks(range(len(pairs)), labels, fontsize="small")
    figure.supxlabel(
        "difference of the CER (percentage points, above 10 logarithmic)", fontsize="medium"
    )
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


@dataclass(frozen=True)
class Results:
    """What a JSON file holds of earlier runs, of other machines too.

    Attributes:
        seeds: by row and seed.
        lines: of the table, by row; also of rows of which only the line is left.
    """

    seeds: Mapping[tuple[str, int], Seed]
    lines: Mapping[str, list[object]]


def read_results(file: Path | None, title: str) -> Results:
    """As `save_seeds` and `report` wrote it; empty without a file."""
    if file is None or not file.exists():
        return Results({}, {})
    known = json.loads(file.read_text())
    lines = {line[0]: line for line in known[title]["rows"]} if title in known else {}
    if title + BY_SPEAKER not in known:
        return Results({}, lines)
    (*_, words, letters), *rows = known[title + BY_SPEAKER]["rows"]
    sizes = _counts(words, letters)
    seeds = {
        (name, seed): Seed(_counts(words, letters), sizes, language, validation, commit)
        for name, seed, commit, validation, language, words, letters in rows
    }
    return Results(seeds, lines)


def _counts(*texts: str) -> dict[str, np.ndarray]:
    return {unit: np.array(text.split(), int) for unit, text in zip(UNITS, texts, strict=True)}


def save_seeds(file: Path, title: str, seeds: Mapping[tuple[str, int], Seed]) -> None:
    """Errors by speaker, from which the table can be made again and later rows be compared."""

    def counts(of: Mapping[str, np.ndarray]) -> list[str]:
        return [" ".join(map(str, of[unit])) for unit in UNITS]

    rows = [["(reference)", "", "", "", "", *counts(next(iter(seeds.values())).sizes)]]
    for (name, number), seed in seeds.items():
        about = [seed.commit, round(seed.validation, 3), round(seed.language, 5)]
        rows.append([name, number, *about, *counts(seed.errors)])
    header = ["row", "seed", "commit", "validation CER (%)", "language right"]
    header += ["word errors by speaker", "character errors by speaker"]
    save(file, title + BY_SPEAKER, header, rows, machine())


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    own = Path(__file__).with_suffix(".yaml")
    parser.add_argument("--grid", type=Path, default=own, help="the rows (default: ablation.yaml)")
    parser.add_argument("--db_root", type=Path, help="the corpora; without it only the table")
    parser.add_argument("--rows", nargs="*", metavar="NAME", help="all without it")
    parser.add_argument("--jobs", type=int, default=1, help="rows trained side by side")
    parser.add_argument("--threads", type=int, default=2, help="of the processor, shared by jobs")
    parser.add_argument("--plot", type=Path, help="write a plot here, such as ablation.svg")
    args = parser.parse_args()
    if not args.grid.is_file():
        parser.error(f"{args.grid}: no such file; --grid is one as ablation.yaml")
    grid, rows = read_grid(args.grid)
    unknown = set(args.rows or ()) - {row.name for row in rows}
    if unknown:
        parser.error(f"{args.grid} has no row {unknown.pop()!r}")
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: 1 or more")
    if args.db_root is not None:
        wanted = [row for row in rows if not args.rows or row.name in args.rows]
        train(grid, wanted, args.db_root.absolute(), args.jobs, args.threads)
    title = f"Ablation, {grid['mixture']}, {' and '.join(grid['test_sets'])} test sets"
    known = read_results(args.json, title)
    seeds = collect(grid, rows, known.seeds)
    if not seeds:
        raise SystemExit(f"error: no row is done below {RECIPE / EXPERIMENTS}; give --db_root")
    if len({tuple(seed.sizes["CER"]) for seed in seeds.values()}) > 1:
        raise SystemExit(f"error: {args.json} is of other test sets; give another --json")
    scores: dict[str, list[Seed]] = {}
    for (name, _), seed in seeds.items():
        scores.setdefault(name, []).append(seed)
    header = ["row", "updates", "seeds", "WER (%)", "CER (%)", "each seed's", "twin"]
    header += ["CER less its (95 %)", "relative (%)", "validation CER (%)", "language right (%)"]
    found = known.lines | {line[0]: line for line in table(rows, scores)}
    lines = [found[row.name] for row in rows if row.name in found]
    report(title, header, lines, args)
    if args.json is not None:
        save_seeds(args.json, title, seeds)
    if args.plot is not None:
        plot(lines, args.plot)


def train(grid: dict, rows: Sequence[Row], db_root: Path, jobs: int, threads: int) -> None:
    """Bring rows to their ends, first seeds first; what fails is named, the rest goes on.

    Raises:
        SystemExit: 1 where a row failed.
    """
    try:
        prepare(grid, rows, db_root, threads)
    except RecipeError as error:
        raise SystemExit(f"error: {error}") from None
    most = max(len(row.seeds) for row in rows)
    runs = [(row, row.seeds[i]) for i in range(most) for row in rows if i < len(row.seeds)]
    recipe = Recipe(grid["mixture"], db_root, max(1, threads // jobs))
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:
        firsts: dict[Path, Future] = {}
        for row in (row for row, seed in runs if not is_done(row, seed)):
            if row.first is not None and row.start() not in firsts:
                mixture, of = row.first
                task = replace(recipe, mixture=mixture), of, of.seeds[0], row.start()
                firsts[row.start()] = pool.submit(fit, *task)
        started = [
            pool.submit(run, recipe, row, seed, row.first and firsts.get(row.start()))
            for row, seed in runs
        ]
        for (row, seed), running in zip(runs, started, strict=True):
            try:
                running.result()
                print(f"{row.name}, seed {seed}: done", flush=True)
            except RecipeError as error:
                failed += 1
                print(f"error: {row.name}, seed {seed}: {error}", flush=True)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
