"""Protect ESPnet's training runs: whole files, one run per folder, unchanged data on resume.

`espnet_mlma.run` wraps the `main` of ESPnet's tasks with this, so it also works under ESPnet's
own `asr.sh`.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from espnet_mlma import claims
from espnet_mlma.espnet import trained_on

_PREFIX = "training: "  # asr.sh shows the lines with this prefix


def guard_main(tasks: ModuleType) -> None:
    """Run the `main` of ESPnet's tasks inside `guarded`.

    Args:
        tasks: the module `espnet2.tasks.abs_task`.
    """
    unguarded = tasks.AbsTask.main.__func__

    def main(cls, args: Namespace | None = None, cmd=None):
        args = cls.get_parser().parse_args(cmd) if args is None else args
        with guarded(args):
            return unguarded(cls, args, cmd)

    tasks.AbsTask.main = classmethod(main)


def write_whole(trainer: ModuleType) -> None:
    """Make `torch.save` write whole files only, and keep the previous checkpoint.

    Args:
        trainer: the module `espnet2.train.trainer`.
    """
    from espnet_mlma import checkpoints
    from espnet_mlma.espnet.resume import CHECKPOINT

    torch = trainer.torch
    save = torch.save

    def save_whole(obj, f, *args, **kwargs) -> None:
        if not isinstance(f, str | os.PathLike):
            save(obj, f, *args, **kwargs)
            return
        path = Path(f)
        checkpoints.save(
            lambda file: save(obj, file, *args, **kwargs),
            path,
            keep_previous=path.name == CHECKPOINT,
        )

    torch.save = save_whole


HOOKS: dict[str, Callable[[ModuleType], None]] = {
    "espnet2.tasks.abs_task": guard_main,
    "espnet2.train.trainer": write_whole,
}


@contextmanager
def guarded(args: Namespace) -> Iterator[None]:
    """Lock and check the output folder of an ESPnet program while it runs.

    Args:
        args: parsed options of the program, such as `asr_train`.

    Raises:
        MlmaError: another process works in the folder; its training used other data or options, or
            cannot be resumed; or the statistics come from other data.
    """
    if not args.output_dir or args.print_config or args.dry_run or not _is_first(args):
        yield
        return
    folder = Path(args.output_dir)
    if args.collect_stats:
        with claims.claim(folder, "collects statistics in it"):
            now = trained_on.describe(args)
            yield
            trained_on.write_collected(folder, now)
        return
    with claims.claim(folder, "trains in it"):
        _prepare(folder, args)
        yield


def _is_first(args: Namespace) -> bool:
    """Return whether this is the only node, or the one that writes."""
    by_slurm = args.dist_launcher == "slurm"
    return not args.dist_rank and not (by_slurm and os.environ.get("SLURM_PROCID", "0") != "0")


def _prepare(folder: Path, args: Namespace) -> None:
    from espnet_mlma import checkpoints
    from espnet_mlma.espnet.resume import CHECKPOINT, repair

    now = trained_on.describe(args)
    trained_on.check_statistics(args, now)
    both = (folder / CHECKPOINT, checkpoints.previous(folder / CHECKPOINT))
    if not args.resume:
        for file in both:  # the old run is overwritten
            file.unlink(missing_ok=True)
    elif any(file.exists() for file in both):
        trained_on.check(folder, now)
    if args.resume:
        repaired = repair(folder, vars(args))
        for line in repaired.lines:
            print(f"{_PREFIX}{line}", flush=True)
        epoch, last = repaired.epoch, args.max_epoch
        if epoch >= last:
            done = f"already trained for {epoch} epochs with this data and configuration"
            print(f"{_PREFIX}{done}", flush=True)
        elif epoch:
            print(f"{_PREFIX}resumes after epoch {epoch} of {last}", flush=True)
    trained_on.write(folder, now)
