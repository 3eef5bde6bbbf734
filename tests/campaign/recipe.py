"""The recipe with a tiny corpus and a tiny model, stage by stage, in seconds."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.campaign import server, watch
from tests.campaign.forked import Ended

ROOT = Path(__file__).resolve().parents[2]
MODEL = """
encoder: conmamba
encoder_conf: {output_size: 8, num_blocks: 1, linear_units: 16, cnn_module_kernel: 3}
model_conf: {ctc_weight: 1.0}
frontend_conf: {n_fft: 512, win_length: 400, hop_length: 160, center: false}
optim: adamw
optim_conf: {lr: 0.01}
batch_type: numel
batch_bins: 600000
max_epoch: 4
num_att_plot: 0
num_workers: 0
use_tensorboard: false
use_matplotlib: false
best_model_criterion: [[valid, cer_ctc, min]]
keep_nbest_models: 2
"""
MIXTURE = "tiny:\n" + "".join(
    f"  {role}: ['mini it,fr {split}']\n"
    for role, split in (("train", "train"), ("valid", "dev"), ("test", "test"))
)
OPTIONS = shlex.split(
    "--train_set train_tiny --valid_set dev_tiny --test_sets 'test_mini_it test_mini_fr' "
    "--local_data_opts '--mixture tiny --mixtures conf/tiny_mix.yaml --db_root db --nj 2' "
    "--asr_config conf/tiny.yaml --token_type char --ngpu 0 --nj 2 --skip_packing false "
    "--lang tiny"
)
EXPERIMENT = "exp/asr_tiny_raw_tiny_char"
# Written by a run and about that run, not about its results.
_NOTES = ("logdir", "images", "tensorboard", "train.log", "run.sh", "__pycache__")
# Put aside with a word about it; who writes, by process and machine.
_TOLERATED = (".broken", ".claim", ".run")
STAGES = (1, 2, 3, 4, 5, 10, 11, 12, 13, 14)


@dataclass(frozen=True)
class Recipe:
    """A recipe's folder that is put back to before any stage.

    Args:
        folder: has `work`, the recipe's folder, and `before/N`, copies of it.
        socket: of the server that stands for `python3`.
    """

    folder: Path
    socket: Path

    @property
    def work(self) -> Path:
        return self.folder / "work" / "egs2/mlma/asr1"

    @property
    def log(self) -> Path:
        return self.folder / "events"

    def run(
        self,
        stage: int,
        environment: Mapping[str, str] | None = None,
        seconds: float = 300,
        real: bool = False,
    ) -> Ended:
        """Run a stage by asr.sh.

        Args:
            stage: its number.
            environment: variables on top.
            seconds: after which it counts as hanging.
            real: whether Python programs are started as they are, and not by the server.
        """
        out, err = self.folder / "out", self.folder / "err"
        with out.open("w") as stdout, err.open("w") as stderr:
            process = self.start(stage, environment, real, stdout=stdout, stderr=stderr)
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                status = None
        texts = (file.read_text(errors="replace") for file in (out, err))
        return Ended(status, *texts)

    def start(
        self,
        stage: int,
        environment: Mapping[str, str] | None = None,
        real: bool = False,
        **streams,
    ) -> subprocess.Popen:
        """Start asr.sh for a stage, in a process group of its own."""
        bin = Path(sys.executable).parent
        path = f"{bin}:{os.environ['PATH']}"
        variables = {
            "PATH": path if real else f"{self.folder / 'bin'}:{path}",
            "VIRTUAL_ENV": str(bin.parent),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            server.SOCKET: str(self.socket),
            watch.LOG: str(self.log),
            watch.BELOW: str(self.folder / "work"),
        }
        options = [*OPTIONS, "--stage", str(stage), "--stop_stage", str(stage)]
        if stage == 2:
            options += ["--speed_perturb_factors", "0.9 1.0"]
        command = [str(self.work / "asr.sh"), *options]
        variables |= dict(environment or {})
        return subprocess.Popen(
            command,
            env=os.environ | variables,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            **streams,
        )

    def restore(self, stage: int) -> None:
        """Put the folder back to before a stage."""
        self.wait_for_orphans()
        self.log.unlink(missing_ok=True)
        # What is mounted there stays.
        (self.folder / "work").mkdir(exist_ok=True)
        for path in (self.folder / "work").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(
            self.folder / "before" / str(stage),
            self.folder / "work",
            symlinks=True,
            dirs_exist_ok=True,
        )

    def wait_for_orphans(self, seconds: float = 20) -> bool:
        """Wait until no process is left that works in the folder; end those that stay.

        Returns:
            Whether all ended by themselves.
        """
        deadline = time.monotonic() + seconds
        while orphans := list(self._orphans()):
            if time.monotonic() > deadline:
                for pid in orphans:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)
                return False
            time.sleep(0.05)
        return True

    def _orphans(self) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if Path(os.readlink(entry / "cwd")).is_relative_to(self.folder / "work"):
                        yield int(entry.name)
                except OSError:
                    continue


@cache
def build(folder: Path) -> Recipe:
    """Run the recipe undisturbed and keep its folder as it was before and after each stage.

    Args:
        folder: to work in; made.
    """
    server.install(folder / "bin")
    server.start(folder / "socket")
    recipe = Recipe(folder, folder / "socket")
    work = recipe.work
    work.mkdir(parents=True)
    for name in ("asr.sh", "run.sh", "path.sh", "cmd.sh", "db.sh"):
        shutil.copy(ROOT / "egs2/mlma/asr1" / name, work)
    for name in ("conf", "local"):
        shutil.copytree(ROOT / name, work / name)
    (work / "conf/tiny.yaml").write_text(MODEL)
    (work / "conf/tiny_mix.yaml").write_text(MIXTURE)
    for stage in STAGES:
        keep(recipe, stage)
        recipe.log.unlink(missing_ok=True)
        ended = recipe.run(stage)
        assert ended.status == 0, f"stage {stage}: {ended.out[-500:]}{ended.err[-2000:]}"
        if recipe.log.exists():
            shutil.copy(recipe.log, folder / f"events.{stage}")
        if stage == 2:  # makes a set that no later stage takes
            keep(recipe, 22)
            recipe.restore(2)
    keep(recipe, 15)
    return recipe


def keep(recipe: Recipe, stage: int) -> None:
    """Keep the folder as it is now, before a stage."""
    shutil.copytree(recipe.folder / "work", recipe.folder / "before" / str(stage), symlinks=True)


def after(stage: int) -> int:
    """The name of the copy that was made after a stage."""
    return 22 if stage == 2 else (*STAGES, 15)[STAGES.index(stage) + 1]


def difference(recipe: Recipe, stage: int) -> str | None:
    """What is other than after the undisturbed stage; None: nothing."""
    wanted, found = recipe.folder / "before" / str(after(stage)), recipe.folder / "work"
    names = [{path: None for path in _results(place)} for place in (wanted, found)]
    for name in names[0]:
        if name not in names[1]:
            return f"{name} is missing"
    for name in names[1]:
        if name not in names[0]:
            return f"{name} is left over"
    return next((f"{n} differs" for n in names[0] if not _equal(wanted / n, found / n)), None)


def _results(place: Path) -> Iterator[Path]:
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        if (
            not path.is_dir()
            and not set(name.parts) & set(_NOTES)
            and name.suffix not in _TOLERATED
        ):
            yield name


def _equal(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    if one.read_bytes() == other.read_bytes():
        return True
    if ".pth" in one.suffixes:
        return _equal_tensors(one, other)
    if one.suffix == ".json" and one.parent.name == "data":  # the record of a shard, with dates
        first, second = (json.loads(path.read_text()) for path in (one, other))
        return _same(*(x | {"key": None, "modified": None} for x in (first, second)))
    if one.suffix == ".zip":
        import zipfile

        with zipfile.ZipFile(one) as first, zipfile.ZipFile(other) as second:
            return sorted(first.namelist()) == sorted(second.namelist())
    return False


def _equal_tensors(one: Path, other: Path) -> bool:
    import torch

    first, second = (torch.load(path, weights_only=True) for path in (one, other))
    if "reporter" in first:  # has times
        keys = ("model", "optimizers", "schedulers")
        first, second = ([state[key] for key in keys] for state in (first, second))
    return _same(first, second)


def _same(one: object, other: object) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
