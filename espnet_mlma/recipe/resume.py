"""Before training goes on: files that were being written when the run was stopped.

ESPnet writes `checkpoint.pth`, and after it the epoch's parameters, in place, and cannot read half
of either.

    python -m espnet_mlma.recipe.resume exp/asr_train
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import torch

from espnet_mlma.errors import run_cli


def set_aside_half_written(experiment: Path) -> Path | None:
    """Rename a checkpoint that is not whole, so that training begins anew instead of failing.

    Args:
        experiment: the folder of the training run.

    Returns:
        The new name, or None if the checkpoint is whole or there is none.
    """
    checkpoint = experiment / "checkpoint.pth"
    if not checkpoint.is_file() or _is_whole(checkpoint):
        return None
    return checkpoint.rename(experiment / "checkpoint.pth.broken")


def complete_half_written(experiment: Path) -> Path | None:
    """Write the last epoch's parameters anew if they are not whole; the checkpoint has them too.

    Args:
        experiment: the folder of the training run, with a whole checkpoint.

    Returns:
        The file that was written, or None if all are whole.
    """
    broken = [path for path in experiment.glob("*epoch.pth") if not _is_whole(path)]
    if not broken:
        return None
    (file,) = broken  # only the last one can be
    checkpoint = torch.load(experiment / "checkpoint.pth", map_location="cpu", weights_only=True)
    new = file.with_suffix(".new")
    torch.save(checkpoint["model"], new)
    return new.replace(file)


def _is_whole(file: Path) -> bool:
    # A writer that Ctrl-C stopped still ends its zip file in order, without what it had to write.
    try:
        torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError):
        return False
    return True


def main() -> None:
    """Entry point; see the module's head."""
    parser = argparse.ArgumentParser(prog="python -m espnet_mlma.recipe.resume")
    parser.add_argument("experiment", type=Path)
    experiment = parser.parse_args().experiment
    broken = set_aside_half_written(experiment)
    if broken:
        print(f"the checkpoint was only half written: now {broken}; training begins anew")
    elif completed := complete_half_written(experiment):
        print(f"{completed} was only half written, and is written anew from the checkpoint")


if __name__ == "__main__":
    run_cli(main)
