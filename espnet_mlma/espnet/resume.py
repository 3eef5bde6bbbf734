"""Repair an experiment before training resumes, after a killed run or a damaged disk.

ESPnet's trainer writes `checkpoint.pth`, the epoch's parameters and links to them one after the
other. It cannot resume if one of them is missing. `espnet_mlma.run` calls this before each
training. To run it by hand:

    mlma recipe resume exp/asr_train
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_mlma import checkpoints, claims, files
from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.errors import MlmaError

CHECKPOINT = "checkpoint.pth"
_EPOCH = re.compile(r"(\d+)epoch\.pth")


@dataclass(frozen=True)
class Repair:
    """Result of a repair.

    Attributes:
        epoch: last finished epoch; 0: none.
        lines: messages to the user, one for each repair.
    """

    epoch: int
    lines: Sequence[str] = ()


def repair(experiment: Path, config: Mapping[str, Any]) -> Repair:
    """Repair an experiment from its last whole checkpoint.

    A damaged checkpoint is renamed, and the previous one takes its place. Missing or damaged
    parameters and links of the last epoch are written again.

    Args:
        experiment: the folder of the training run.
        config: ESPnet's options; `best_model_criterion`, `keep_nbest_models` and `max_epoch` are
            read, and each may be missing.

    Raises:
        MlmaError: no checkpoint is whole and epochs would be lost; or training is finished and one
            of the epochs to average is damaged.
    """
    state, lines = _last_state(experiment)
    if state is None:
        return Repair(0, lines)
    epoch = state["reporter"]["epoch"]
    own = experiment / f"{epoch}epoch.pth"
    if checkpoints.read(own) is None:
        _write_parameters(own, state)
        lines.append(f"{own}: missing or damaged; written again from {CHECKPOINT}")
    _link(experiment / "latest.pth", own.name, lines)
    for link, name in _best(state["reporter"], config).items():
        if (experiment / name).is_file():
            _link(experiment / link, name, lines)
    lines += _repair_others(experiment, state, config)
    return Repair(epoch, lines)


def _last_state(experiment: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Restore and return the last whole checkpoint; None: training starts at epoch 1."""
    checkpoint = experiment / CHECKPOINT
    previous = checkpoints.previous(checkpoint)
    state = _read(checkpoint)
    if state is not None:
        return state, []
    earlier = _read(previous)
    found = "damaged" if checkpoint.exists() else "missing"
    epochs = _epochs(experiment)
    if earlier is None and max(epochs, default=0) > 1:
        raise MlmaError(
            f"{checkpoint}: {found}, and so is the previous one; copy it back, or remove "
            f"{experiment} to train from epoch 1 over its {max(epochs)} epochs"
        )
    lines = []
    if checkpoint.exists():
        broken = checkpoint.with_name(f"{CHECKPOINT}.broken")
        os.replace(checkpoint, broken)
        found = f"damaged, now {broken.name}"
    if earlier is None:
        if found != "missing":
            lines.append(
                f"{checkpoint}: {found}; there is no earlier one; training starts at epoch 1"
            )
        return None, lines
    os.replace(previous, checkpoint)
    epoch = earlier["reporter"]["epoch"]
    lines.append(
        f"{checkpoint}: {found}; training resumes from the previous one, after epoch {epoch}"
    )
    return earlier, lines


def _read(checkpoint: Path) -> dict[str, Any] | None:
    """Read a checkpoint of ESPnet's trainer; None: it is missing or damaged."""
    state = checkpoints.read(checkpoint) if checkpoint.is_file() else None
    if state is None:
        return None
    try:
        return state if isinstance(state["reporter"]["epoch"], int) and state["model"] else None
    except (TypeError, KeyError):
        return None


def _write_parameters(file: Path, state: Mapping[str, Any]) -> None:
    checkpoints.save(lambda new: torch.save(state["model"], new), file)


def _repair_others(
    experiment: Path, state: Mapping[str, Any], config: Mapping[str, Any]
) -> list[str]:
    """Restore an earlier epoch from the previous checkpoint; report those that are lost."""
    lines, epoch = [], state["reporter"]["epoch"]
    others = sorted(_averaged(state["reporter"], config) - {epoch})
    damaged = [n for n in others if checkpoints.read(experiment / f"{n}epoch.pth") is None]
    earlier = _read(checkpoints.previous(experiment / CHECKPOINT)) if damaged else None
    for other in damaged:
        file = experiment / f"{other}epoch.pth"
        if earlier is not None and earlier["reporter"]["epoch"] == other:
            _write_parameters(file, earlier)
            lines.append(f"{file}: missing or damaged; written again from the previous checkpoint")
            continue
        lost = f"{file}: missing or damaged, and one of the best epochs, which are averaged"
        if epoch >= config.get("max_epoch", float("inf")):
            raise MlmaError(f"{lost}; copy it back, or remove {experiment} to train again")
        lines.append(f"{lost}; copy it back before training ends, unless later epochs are better")
    return lines


def _epochs(experiment: Path) -> list[int]:
    found = (_EPOCH.fullmatch(path.name) for path in experiment.glob("*epoch.pth"))
    return [int(match[1]) for match in found if match]


def _reporter(state: Mapping[str, Any]):
    from espnet2.train.reporter import Reporter

    reporter = Reporter()
    reporter.load_state_dict(dict(state))
    return reporter


def _criteria(reporter, config: Mapping[str, Any]) -> list[Sequence[str]]:
    given = config.get("best_model_criterion") or ()
    return [(phase, key, mode) for phase, key, mode in given if reporter.has(phase, key)]


def _best(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """Return the target of each of ESPnet's links to the best epochs."""
    if not config.get("best_model_criterion"):
        return {}
    reporter = _reporter(state)
    return {
        f"{phase}.{key}.best.pth": f"{reporter.get_best_epoch(phase, key, mode)}epoch.pth"
        for phase, key, mode in _criteria(reporter, config)
    }


def _averaged(state: Mapping[str, Any], config: Mapping[str, Any]) -> set[int]:
    """Return the epochs that ESPnet would average if training ended now."""
    keep = config.get("keep_nbest_models")
    most = max(keep, default=1) if isinstance(keep, list | tuple) else keep
    if most is None or not config.get("best_model_criterion"):
        return set()
    reporter = _reporter(state)
    best = (reporter.sort_epochs(*of)[:most] for of in _criteria(reporter, config))
    return {epoch for epochs in best for epoch in epochs}


def _link(link: Path, name: str, lines: list[str]) -> None:
    """Point a link at a file beside it, in one step; keep a link that was copied as a file."""
    is_right = os.readlink(link) == name if link.is_symlink() else link.is_file()
    if is_right:
        return
    new = claims.beside(link, "new")
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    os.replace(new, link)
    lines.append(f"{link}: was missing or old; now links to {name}")


def main(argv: Sequence[str] | None = None) -> None:
    """Repair the experiment named on the command line."""
    parser = ArgumentParser(prog="mlma recipe resume")
    parser.add_argument("experiment", type=Path)
    experiment = parser.parse_args(argv).experiment
    try:
        config = files.read_yaml(experiment / "config.yaml", "train again")
    except MlmaError:  # killed before ESPnet wrote it whole; training writes it again
        config = {}
    with claims.claim(experiment, "trains in it"):
        for line in repair(experiment, config).lines:
            print(line)
