"""Train and score small models that differ in one thing, and say by how much.

    python benchmarks/ablation.py --db_root CORPORA [--rows NAME ...] [--jobs 2] [--json FILE]

The rows are those of ablation.yaml. Each is trained and decoded by the recipe on the data of stages
1 to 4, which are made if they are not there, and lies below exp/ablation of the recipe; what is
done stays done, and a run that was stopped goes on when it is given again. One table is of the test
sets that were chosen to judge by, the other of those whose speakers training has not heard; a third
compares the `pairs` of the grid. Rates are those of all their utterances together, mean of the
seeds; intervals are those of resampled speakers, of the difference to the twin likewise. The
language is guessed from the text, where no token says it. The validation CER is that of the best
epoch, before averaging. What the file of --json holds of runs elsewhere stays in the table.
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
from ablation_grid import EXPERIMENTS, MODEL, RECIPE, Row, read_grid
from ablation_results import (
    HEADER,
    PAIRS_HEADER,
    Seed,
    collect,
    pairs_table,
    plot,
    read_results,
    save_seeds,
    table,
    with_kept,
)
from common import ROOT, arguments, machine, report

from espnet_mlma.errors import run_cli

VARIANTS = "conmamba_"  # encoders of variants.py; they recognise as conmamba does


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
class Shown:
    """A table that was printed: its lines, and by row the seeds that it is of."""

    lines: list[list[object]]
    scores: dict[str, list[Seed]]


def show(
    grid: dict, rows: Sequence[Row], corpora: Sequence[str], args: argparse.Namespace
) -> Shown:
    """Score what is done on the test sets of some corpora, print the table and write it.

    Args:
        grid, rows: of `read_grid`.
        corpora: whose test sets count.
        args: with --json, which keeps tables and errors by speaker of earlier runs as well.

    Raises:
        SystemExit: 1 where no row is done, or the JSON file is of other test sets.
    """
    title = f"Ablation, {grid['mixture']}, {' and '.join(corpora)} test sets"
    known = read_results(args.json, title)
    seeds = collect(corpora, rows, known.seeds)
    if not seeds:
        raise SystemExit(f"error: no row is done below {RECIPE / EXPERIMENTS}; give --db_root")
    if len({tuple(seed.sizes["CER"]) for seed in seeds.values()}) > 1:
        raise SystemExit(f"error: {args.json} is of other test sets; give another --json")
    scores: dict[str, list[Seed]] = {}
    for (name, _), seed in seeds.items():
        scores.setdefault(name, []).append(seed)
    found = with_kept(table(rows, scores), known.lines)
    lines = [found[row.name] for row in rows if row.name in found]
    report(title, HEADER, lines, args)
    if args.json is not None:
        save_seeds(args.json, title, seeds)
    return Shown(lines, scores)


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
