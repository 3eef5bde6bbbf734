"""Before training goes on: a checkpoint that was being written when the run was stopped.

ESPnet writes `checkpoint.pth` in place and cannot read half of one.

    python -m espnet_mlma.recipe.resume exp/asr_train
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

from espnet_mlma.errors import run_cli


def set_aside_half_written(experiment: Path) -> Path | None:
    """Rename a checkpoint that is not whole, so that training begins anew instead of failing.

    Args:
        experiment: the folder of the training run.

    Returns:
        The new name, or None if the checkpoint is whole or there is none.
    """
    checkpoint = experiment / "checkpoint.pth"
    # torch.save writes a zip file, whose directory comes last.
    if not checkpoint.is_file() or zipfile.is_zipfile(checkpoint):
        return None
    return checkpoint.rename(experiment / "checkpoint.pth.broken")


def main() -> None:
    """Entry point; see the module's head."""
    parser = argparse.ArgumentParser(prog="python -m espnet_mlma.recipe.resume")
    parser.add_argument("experiment", type=Path)
    broken = set_aside_half_written(parser.parse_args().experiment)
    if broken:
        print(f"the checkpoint was only half written: now {broken}; training begins anew")


if __name__ == "__main__":
    run_cli(main)
