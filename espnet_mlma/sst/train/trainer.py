"""Run the updates of one stage of training, with checkpoints that resume to the same bits on a CPU.

We keep our own process groups (`parallel.py`) instead of `accelerate`: its checkpoints also store
random states and the position of a sampler, which are per process. Ours store neither, so that a
run can resume with another number of processes.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from espnet_mlma import checkpoints, files
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.config import Config, TrainingConfig
from espnet_mlma.sst.model import SegmentBatch, Stage
from espnet_mlma.sst.train.dataset import Batches, PlannedBatch
from espnet_mlma.sst.train.parallel import ProcessGroup, full_tensor

_CHECKPOINT = "checkpoint.pt"
_LOSSES = "losses.jsonl"
# All trained tensors, unsharded and on the CPU.
_FULL_STATE = StateDictOptions(
    full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False
)


def learning_rate(update: int, highest: float, warmup: int, total: int) -> float:
    """Return the learning rate of an update: linear warm-up, then a cosine down to 0.

    Args:
        update: from 0.
        highest: learning rate at the last update of the warm-up.
        warmup: updates of the warm-up.
        total: updates of the stage.
    """
    if update < warmup:
        return highest * (update + 1) / warmup
    progress = (update - warmup) / max(1, total - warmup)
    return highest * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass
class TrainingProgress:
    """Position of a training: epoch, updates done in that epoch, updates done in total."""

    epoch: int = 0
    of_epoch: int = 0
    updates: int = 0


class Trainer:
    """Train one stage.

    Dropout is seeded by the number of the batch. A checkpoint therefore needs only parameters,
    optimiser and position. The number of processes changes only the last bits of sums.

    Args:
        model: prepared for the stage; maps a batch to the summed loss of its targets.
        config: configuration of the translator.
        stage: 0, 1 or 2.
        batches: batches of the training set.
        group: processes of this training.
        folder: receives checkpoints and losses.
        key: digest of configuration, stage and data; a checkpoint with another key is refused.

    Raises:
        MlmaError: the checkpoint has another key, or all checkpoints are damaged.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        stage: Stage,
        batches: Batches,
        group: ProcessGroup,
        folder: Path,
        key: str,
    ):
        self._config: TrainingConfig = config.training
        self._of_stage = config.stage(stage)
        self._stage = stage
        self._batches = batches
        self._group = group
        self._folder = folder
        self._key = key
        self._model = group.wrap(model)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._optimiser = torch.optim.Adam(self._parameters, lr=self._of_stage.learning_rate)
        self.progress = TrainingProgress()
        self._recent: list[tuple[float, int]] = []  # loss and targets since the last log line
        self._resume()

    def run(self) -> dict[str, Any]:
        """Train to the last epoch.

        Returns:
            The trained tensors, unsharded and on the CPU; empty in all processes but the first.

        Raises:
            MlmaError: a segment cannot be read, or a gradient contains NaN or Inf.
        """
        self._model.train()
        progress, size = self.progress, self._config.batches_per_update
        # Epochs differ by a few batches; the schedule uses the length of the first.
        first = self._batches.plan(0)
        total = self._of_stage.epochs * -(-len(first) // size)
        while progress.epoch < self._of_stage.epochs:
            plan = self._batches.plan(progress.epoch) if progress.epoch else first
            updates = list(batched(plan, size))[progress.of_epoch :]
            shares = [self._share(planned) for planned in updates]
            loaded = self._batches.load(planned for share in shares for planned in share)
            for planned, share in zip(updates, shares, strict=True):
                rate = learning_rate(
                    progress.updates,
                    self._of_stage.learning_rate,
                    self._config.warmup_updates,
                    total,
                )
                self._update(planned, share, [next(loaded) for _ in share], rate)
                if progress.updates % self._config.log_updates == 0:
                    self._print(total)
                if progress.updates % self._config.save_updates == 0:
                    self._save()
            progress.epoch, progress.of_epoch = progress.epoch + 1, 0
            self._save()
        if self._recent:
            self._print(total)
        return get_model_state_dict(self._model, options=_FULL_STATE)

    def delete_checkpoints(self) -> None:
        """Delete the checkpoints of a finished training."""
        for file in (self._folder / _CHECKPOINT, checkpoints.previous(self._folder / _CHECKPOINT)):
            file.unlink(missing_ok=True)

    def _share(self, planned: Sequence[PlannedBatch]) -> list[PlannedBatch]:
        """Return this process's batches of an update, as many as in every other process."""
        mine = list(planned[self._group.rank :: self._group.size])
        most = -(-len(planned) // self._group.size)
        return mine + [planned[0]] * (most - len(mine))

    def _update(
        self,
        planned: Sequence[PlannedBatch],
        share: Sequence[PlannedBatch],
        batches: Sequence[SegmentBatch],
        rate: float,
    ) -> None:
        """Take one step of the optimiser on the mean loss over all targets of all processes."""
        own = len(planned[self._group.rank :: self._group.size])  # padding has weight 0
        targets = int(self._group.total(sum(batch.targets for batch in batches[:own])))
        scale = self._group.size / targets  # gradients are averaged over processes
        total = 0.0
        for place, (plan, batch) in enumerate(zip(share, batches, strict=True)):
            weight = float(place < own)
            torch.manual_seed(self._seed(plan))
            with self._group.gradient_sync(self._model, place == len(share) - 1):
                with torch.autocast(
                    self._group.device.type,
                    torch.bfloat16,
                    enabled=self._config.precision == "bfloat16",
                ):
                    loss = self._model(batch.to(self._group.device))
                (loss * (weight * scale)).backward()
            total += weight * loss.item()
        norm = full_tensor(torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm))
        loss = self._group.total(total) / targets
        if not math.isfinite(norm):
            names = [self._batches.segments[i].id for plan in planned for i in plan.segments]
            raise MlmaError(
                f"update {self.progress.updates + 1}: the gradient is {norm:g}, the loss {loss:g}; "
                f"its segments are {' '.join(names[:8])}{' ...' if len(names) > 8 else ''}: check "
                "their audio, or train with a lower learning_rate or in float32"
            )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.progress.of_epoch += 1
        self.progress.updates += 1
        self._log(loss, targets, norm.item(), rate)

    def _seed(self, planned: PlannedBatch) -> int:
        text = f"{self._config.seed} {self._stage} {self.progress.epoch} {planned.number}"
        return random.Random(text).getrandbits(63)

    def _log(self, loss: float, targets: int, norm: float, rate: float) -> None:
        self._recent.append((loss, targets))
        if not self._group.is_first:
            return
        line = {
            "update": self.progress.updates,
            "epoch": self.progress.epoch + 1,
            "loss": loss,
            "targets": targets,
            "gradient_norm": norm,
            "learning_rate": rate,
        }
        with (self._folder / _LOSSES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _print(self, total: int) -> None:
        targets = sum(count for _, count in self._recent)
        loss = sum(loss * count for loss, count in self._recent) / targets
        self._recent.clear()
        if self._group.is_first:
            print(
                f"stage {self._stage}: update {self.progress.updates} of about {total}, "
                f"loss {loss:.4f}, learning rate {self._optimiser.param_groups[0]['lr']:.3g}",
                flush=True,
            )

    def _save(self) -> None:
        """Write a checkpoint atomically; every process must call this."""
        state = {
            "key": self._key,
            "progress": asdict(self.progress),
            "model": get_model_state_dict(self._model, options=_FULL_STATE),
            "optimiser": get_optimizer_state_dict(
                self._model, self._optimiser, options=_FULL_STATE
            ),
        }
        if self._group.is_first:
            checkpoints.save(
                lambda new: torch.save(state, new), self._folder / _CHECKPOINT, keep_previous=True
            )
        self._group.wait()

    def _resume(self) -> None:
        """Resume from the newest checkpoint, if any, and drop the losses logged after it."""
        file, losses = self._folder / _CHECKPOINT, self._folder / _LOSSES
        state, is_damaged = _last_state(file)
        self._group.wait()  # for all processes to read it
        if is_damaged and self._group.is_first:
            file.replace(file.with_name(f"{file.name}.broken"))
            checkpoints.previous(file).replace(file)
            print(f"{file}: damaged, renamed to {file.name}.broken; resuming from the previous one")
        if state is not None:
            if state["key"] != self._key:
                raise MlmaError(
                    f"{file}: belongs to another configuration, stage or training set; choose "
                    "another --out, or delete the file to start over"
                )
            self.progress = TrainingProgress(**state["progress"])
            set_model_state_dict(self._model, state["model"], options=_FULL_STATE)
            set_optimizer_state_dict(
                self._model, self._optimiser, state["optimiser"], options=_FULL_STATE
            )
        if self._group.is_first:
            lines = losses.read_text(encoding="utf-8").splitlines(True) if losses.exists() else []
            files.write(losses, "".join(lines[: self.progress.updates]))
            if self.progress.updates:
                print(f"stage {self._stage}: resumes after update {self.progress.updates}")
        self._group.wait()


def _last_state(file: Path) -> tuple[dict[str, Any] | None, bool]:
    """Return the newest intact checkpoint, if any, and whether a newer one is damaged."""
    previous = checkpoints.previous(file)
    newest = file if file.exists() else previous
    if not newest.exists():
        return None, False
    state = checkpoints.read(newest)
    if state is not None:
        return state, False
    state = checkpoints.read(previous)
    if state is None:
        raise MlmaError(
            f"{newest}: damaged, and so is the previous checkpoint; delete it to start over"
        )
    return state, True
