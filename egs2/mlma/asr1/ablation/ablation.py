"""Train and score small models that differ in one thing; print the differences.

    python ablation.py --db_root CORPORA [--rows NAME ...] [--jobs 2] [--json FILE]

grid.yaml defines the rows. The recipe trains and decodes each below exp/ablation, on the data
of stages 1 to 4, which run if needed. Re-running skips finished rows and resumes stopped ones. One
table is of the `test_sets` of the grid, one of its unseen speakers; a third compares its `pairs`.
Rates are of all utterances together, mean of the seeds. Intervals are bootstraps over speakers. The
language is guessed from the text if no token gives it. The validation CER is that of the best
epoch, before averaging. Results of other machines in the --json file stay in the table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from ablation_grid import EXPERIMENTS, MODEL, RECIPE, ROOT, Row, read_grid
from ablation_results import (
    HEADER,
    PAIRS_HEADER,
    Seed,
    collect,
    merge_lines,
    pairs_table,
    plot,
    read_results,
    save_seeds,
    table,
)
from common import arguments, machine, report

from espnet_mlma.errors import run_cli

VARIANTS = "conmamba_"  # encoders of variants.py, decoded as conmamba


def run(recipe: Recipe, row: Row, seed: int, first: Future | None) -> None:
    """Train, decode and score one row with one seed; skip finished steps.

    Args:
        recipe: on the grid's mixture.
        row: of the grid.
        seed: of its training.
        first: initial training, running or done; None: the row needs none.

    Raises:
        RecipeError: the recipe failed.
    """
    folder = row.folder(seed)
    if row.is_done(seed):
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


def fit(recipe: Recipe, row: Row, seed: int, folder: Path, more: Iterable[object] = ()) -> None:
    """Train a row's model in `folder`, or resume its training."""
    (RECIPE / folder).mkdir(parents=True, exist_ok=True)
    config = RECIPE / folder / "ablation.yaml"
    config.write_text(yaml.safe_dump(dict(row.config)), encoding="utf-8")
    options = [*_options(row, folder), "--asr_args", f"--seed {seed}", "--asr_exp", folder, *more]
    recipe([11, 11], options, folder)


def _options(row: Row, folder: Path) -> list[object]:
    options = [*row.recipe, "--asr_config", RECIPE / folder / "ablation.yaml", "--ngpu", 0]
    if str(row.config["encoder"]).startswith(VARIANTS):
        options += ["--python", f"python3 {Path(__file__).with_name('variants.py').absolute()}"]
    return options


def prepare(grid: dict, rows: Iterable[Row], db_root: Path, threads: int) -> None:
    """Run stages 1 to 4 for each mixture, and 5 to 10 for each kind of tokens.

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
    """Failure of a stage, with the path of its log."""


@dataclass(frozen=True)
class Recipe:
    """Run run.sh on a mixture."""

    mixture: str
    db_root: Path
    threads: int

    def __call__(self, stages: Sequence[int], options: Iterable[object], folder: Path) -> None:
        """Run a range of stages; their output goes to run.log of a folder.

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
    """Replace a variant by `conmamba`: a single utterance has no padding, so both are equal."""
    written = yaml.safe_load(config.read_text(encoding="utf-8"))
    if str(written["encoder"]).startswith(VARIANTS):
        config.write_text(yaml.safe_dump(written | {"encoder": "conmamba"}), encoding="utf-8")


def train(grid: dict, rows: Sequence[Row], db_root: Path, jobs: int, threads: int) -> None:
    """Train all rows, first seeds first; print failures and continue.

    Raises:
        SystemExit: 1 if a row failed.
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
        for row in (row for row, seed in runs if not row.is_done(seed)):
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


@dataclass(frozen=True)
class PrintedTable:
    """A printed table: its lines, and its results by row."""

    lines: list[list[object]]
    scores: dict[str, list[Seed]]


def show(
    grid: dict, rows: Sequence[Row], corpora: Sequence[str], args: argparse.Namespace
) -> PrintedTable:
    """Score finished rows on the test sets of corpora; print and write the table.

    Args:
        grid, rows: see `read_grid`.
        corpora: their test sets count.
        args: with --json, a file that may have results of earlier runs.

    Raises:
        SystemExit: 1 if no row is finished, or the JSON file has other test sets.
    """
    title = f"Ablation, {grid['mixture']}, {' and '.join(corpora)} test sets"
    known = read_results(args.json, title)
    seeds = collect(corpora, rows, known.seeds)
    if not seeds:
        raise SystemExit(f"error: {RECIPE / EXPERIMENTS}: no row is finished; train with --db_root")
    if len({tuple(seed.sizes["CER"]) for seed in seeds.values()}) > 1:
        raise SystemExit(f"error: {args.json}: has other test sets; give another --json")
    scores: dict[str, list[Seed]] = {}
    for (name, _), seed in seeds.items():
        scores.setdefault(name, []).append(seed)
    found = merge_lines(table(rows, scores), known.lines)
    lines = [found[row.name] for row in rows if row.name in found]
    report(title, HEADER, lines, args)
    if args.json is not None:
        save_seeds(args.json, title, seeds)
    return PrintedTable(lines, scores)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    own = Path(__file__).with_name("grid.yaml")
    parser.add_argument("--grid", type=Path, default=own, help="the rows (default: grid.yaml here)")
    parser.add_argument("--db_root", type=Path, help="corpora; without it, only print the tables")
    parser.add_argument("--rows", nargs="*", metavar="NAME", help="(default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="rows trained in parallel")
    parser.add_argument("--threads", type=int, default=2, help="threads, shared by the jobs")
    parser.add_argument("--plot", type=Path, help="write a plot here, such as ablation.svg")
    args = parser.parse_args()
    if not args.grid.is_file():
        parser.error(f"{args.grid}: no such file; give a file like grid.yaml")
    grid, rows = read_grid(args.grid)
    unknown = set(args.rows or ()) - {row.name for row in rows}
    if unknown:
        parser.error(f"{args.grid}: row {unknown.pop()!r} does not exist")
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: give 1 or more")
    if args.db_root is not None:
        wanted = [row for row in rows if not args.rows or row.name in args.rows]
        train(grid, wanted, args.db_root.absolute(), args.jobs, args.threads)
    tables = {
        f"{' and '.join(grid[sets])} test sets{about}": show(grid, rows, grid[sets], args)
        for sets, about in (("test_sets", ""), ("new_speakers", ", speakers not heard"))
    }
    scores = {sets: shown.scores for sets, shown in tables.items()}
    pairs = pairs_table(grid.get("pairs", ()), scores)
    if pairs:
        report(f"Ablation, {grid['mixture']}, pairs of rows", PAIRS_HEADER, pairs, args)
    if args.plot is not None:
        plot({sets: shown.lines for sets, shown in tables.items()}, args.plot)


if __name__ == "__main__":
    run_cli(main)
