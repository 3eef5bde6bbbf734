"""The grid of ablation.py: rows with their training configurations."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml

RECIPE = Path(__file__).resolve().parents[1]
ROOT = RECIPE.parents[2]
# For `common`, which writes the tables; the modules that import it import this one before.
sys.path.append(str(ROOT / "benchmarks"))
EXPERIMENTS = Path("exp") / "ablation"  # below the recipe
EPOCHS = 10
MODEL = "valid.cer_ctc.ave"


@dataclass(frozen=True)
class Row:
    """A row of the grid.

    Attributes:
        name: unique.
        updates: number of parameter updates.
        seeds: one training each.
        config: training configuration.
        recipe: options of run.sh.
        twin: name of the row to compare with; None: none.
        first: a mixture and a row. That row is trained on the mixture with its first seed, and its
            encoder initialises this row's; rows with the same start share the training.
    """

    name: str
    updates: int
    seeds: tuple[int, ...]
    config: Mapping[str, object]
    recipe: tuple[str, ...] = ()
    twin: str | None = None
    first: tuple[str, Row] | None = None

    def folder(self, seed: int) -> Path:
        """Return the experiment's folder, relative to the recipe."""
        letters = "".join(c if c.isalnum() else "_" for c in self.name.lower())
        return EXPERIMENTS / f"{letters}_seed{seed}"

    def is_done(self, seed: int) -> bool:
        """Return whether a seed is trained, decoded and scored."""
        return (RECIPE / self.folder(seed) / "done").exists()

    def start(self) -> Path:
        """Return the folder of the initial training, relative to the recipe."""
        mixture, row = self.first
        folder = row.folder(row.seeds[0])
        return folder.with_name(f"{folder.name}_{mixture}")


def read_grid(path: Path) -> tuple[dict, list[Row]]:
    """Read the settings of a grid, and its rows with complete configurations.

    Raises:
        MlmaError: a row or a pair names a budget or a row that does not exist.
    """
    grid = read_yaml(path, "give a file like grid.yaml")
    base = read_yaml(ROOT / grid["base"], "it is the `base` of the grid")
    rows: dict[str, Row] = {}
    given_rows = grid.pop("rows")
    for name, given in given_rows.items():
        wanted = [(given["budget"], grid["budgets"]), (given.get("twin"), given_rows)]
        wanted += [(given["first"]["row"], rows)] if given.get("first") else []
        for value, known in wanted:
            if value is not None and value not in known:
                raise MlmaError(
                    f"{path}: {name}: {value!r} does not exist; use one of {' '.join(known)}"
                )
        updates = grid["budgets"][given["budget"]]
        config = _sized(_merged(base, given.get("config", {})), updates)
        recipe, seeds = tuple(given.get("recipe", "").split()), tuple(given["seeds"])
        first = given.get("first") and _start(given["first"], rows)
        rows[name] = Row(name, updates, seeds, config, recipe, given.get("twin"), first)
    unknown = [name for pair in grid.get("pairs", ()) for name in pair if name not in rows]
    if unknown:
        raise MlmaError(f"{path}: pairs: row {unknown[0]!r} does not exist; use a row of the grid")
    return grid, list(rows.values())


def _start(first: Mapping, rows: Mapping[str, Row]) -> tuple[str, Row]:
    """Return the mixture and row of `first`; a changed row has its own name."""
    row = rows[first["row"]]
    if "config" in first:
        row = replace(row, name=first["name"], config=_merged(row.config, first["config"]))
    return first["mixture"], row


def _merged(base: Mapping, changes: Mapping) -> dict:
    """Return `base` with changed values, also in nested tables."""
    base = dict(base)
    encoder = str(changes.get("encoder", "conmamba"))
    if not encoder.startswith("conmamba"):
        base.pop("encoder_conf")
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _merged(base[key], value) if both else value
    return base


def _sized(config: dict, updates: int) -> dict:
    """Return a configuration with this number of updates and its schedule."""
    schedule = config["scheduler_conf"] | {"max_steps": updates}
    steps = {"max_epoch": EPOCHS, "num_iters_per_epoch": updates // EPOCHS}
    return config | steps | {"scheduler_conf": schedule}
