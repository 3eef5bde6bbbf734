"""Train a translator: encoder and adapter in stage 1, LoRA in the language model in stage 2.

Stage 0, where the configuration has one, comes before: encoder and adapter learn to say what they
hear in the language model's tokens (`hearing.py`).

    python -m espnet_mlma.sst train --stage 1 --config tiny.yaml --data train.jsonl --out exp/1
    torchrun --nproc-per-node 8 -m espnet_mlma.sst train --stage 2 --config wav2vec2_qwen7b.yaml \\
        --data train.jsonl --init exp/1 --out exp/2

The same command again goes on where it was stopped, to the same bits on a CPU. `--out` gets
speech.safetensors, after stage 2 lora/, and config.yaml: together a translator; and losses.jsonl
with a line for each update.

Source: CMU's IWSLT 2025 Simultaneous Speech Translation System, section 4.1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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

from espnet_mlma import checkpoints, claims, files
from espnet_mlma.errors import MlmaError
from espnet_mlma.memory import keep_freed_memory
from espnet_mlma.sst import config as configuration
from espnet_mlma.sst import model as models
from espnet_mlma.sst import stamps
from espnet_mlma.sst.config import Config, TrainingConfig
from espnet_mlma.sst.data.records import Segment
from espnet_mlma.sst.data.shards import digest
from espnet_mlma.sst.grid import CHUNK_SECONDS
from espnet_mlma.sst.llm.model import SMOLLM2
from espnet_mlma.sst.model import Batch, Stage
from espnet_mlma.sst.stamps import Stamp
from espnet_mlma.sst.train.ctc import Hearing
from espnet_mlma.sst.train.dataset import Batches, Planned, dialogues, read_all
from espnet_mlma.sst.train.parallel import Group, joined, whole

_CHECKPOINT = "checkpoint.pt"
_LOSSES = "losses.jsonl"
_REPORT = "training.json"
# What is trained, whole and on the CPU, whoever holds it.
_WHOLE = StateDictOptions(
    full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False
)
# Options that change nothing in what is learnt.
_WITHOUT_EFFECT = ("read_ahead", "log_updates", "save_updates")


def learning_rate(update: int, highest: float, warmup: int, total: int) -> float:
    """That of an update: up to the highest in `warmup` updates, then a cosine down to 0.

    Args:
        update: from 0.
        highest: reached in the last update of the warm-up.
        warmup, total: updates.
    """
    if update < warmup:
        return highest * (update + 1) / warmup
    progress = (update - warmup) / max(1, total - warmup)
    return highest * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass
class Progress:
    """How far a training is: the epoch, updates done of it, updates done in all."""

    epoch: int = 0
    of_epoch: int = 0
    updates: int = 0


class Trainer:
    """One stage of training.

    Dropout is seeded for each batch, by its number. So nothing but parameters, the optimiser and
    the position has to be kept, and the number of processes changes sums' last bits alone.

    Args:
        model: prepared for the stage; given a batch it returns the sum of its targets' losses.
        config: of the translator.
        stage: 0, 1 or 2.
        batches: of the training set.
        group: the processes.
        folder: gets checkpoints and losses.
        key: what is trained from what; a checkpoint with another is refused.

    Raises:
        MlmaError: there is such a checkpoint, or a damaged one.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        stage: Stage,
        batches: Batches,
        group: Group,
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
        self.progress = Progress()
        self._recent: list[tuple[float, int]] = []  # loss and targets, since the last line
        self._resume()

    def run(self) -> dict[str, Any]:
        """Train to the end.

        Returns:
            All that was trained, whole and on the CPU; in other processes than the first, nothing.

        Raises:
            MlmaError: a segment cannot be read, or a gradient is not finite.
        """
        self._model.train()
        progress, size = self.progress, self._config.batches_per_update
        # Epochs differ by a few batches; the cosine is that of the first.
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
        return get_model_state_dict(self._model, options=_WHOLE)

    def _share(self, planned: Sequence[Planned]) -> list[Planned]:
        """This process's batches of an update, as many as any has: the last may be one too many."""
        mine = list(planned[self._group.rank :: self._group.size])
        most = -(-len(planned) // self._group.size)
        return mine + [planned[0]] * (most - len(mine))

    def _update(
        self,
        planned: Sequence[Planned],
        share: Sequence[Planned],
        batches: Sequence[Batch],
        rate: float,
    ) -> None:
        """One step of the optimiser: the mean over all targets of all processes."""
        own = len(planned[self._group.rank :: self._group.size])  # the rest counts for nothing
        targets = int(self._group.total(sum(batch.targets for batch in batches[:own])))
        scale = self._group.size / targets  # gathering gradients divides by the size
        total = 0.0
        for place, (plan, batch) in enumerate(zip(share, batches, strict=True)):
            weight = float(place < own)
            torch.manual_seed(self._seed(plan))
            with self._group.gathering(self._model, place == len(share) - 1):
                with torch.autocast(
                    self._group.device.type,
                    torch.bfloat16,
                    enabled=self._config.precision == "bfloat16",
                ):
                    loss = self._model(batch.to(self._group.device))
                (loss * (weight * scale)).backward()
            total += weight * loss.item()
        norm = whole(torch.nn.utils.clip_grad_norm_(self._parameters, self._config.clip_norm))
        loss = self._group.total(total) / targets
        if not math.isfinite(norm):
            names = [self._batches.segments[i].id for plan in planned for i in plan.segments]
            raise MlmaError(
                f"update {self.progress.updates + 1}: the gradient is {norm:g}, the loss {loss:g}; "
                f"its segments are {' '.join(names[:8])}{' ...' if len(names) > 8 else ''}: listen "
                "to them, or train with a lower learning_rate or in float32"
            )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.progress.of_epoch += 1
        self.progress.updates += 1
        self._note(loss, targets, norm.item(), rate)

    def _seed(self, planned: Planned) -> int:
        text = f"{self._config.seed} {self._stage} {self.progress.epoch} {planned.number}"
        return random.Random(text).getrandbits(63)

    def _note(self, loss: float, targets: int, norm: float, rate: float) -> None:
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
        """Write a checkpoint, whole or not at all; all processes take part."""
        state = {
            "key": self._key,
            "progress": asdict(self.progress),
            "model": get_model_state_dict(self._model, options=_WHOLE),
            "optimiser": get_optimizer_state_dict(self._model, self._optimiser, options=_WHOLE),
        }
        if self._group.is_first:
            checkpoints.save(
                lambda new: torch.save(state, new), self._folder / _CHECKPOINT, keep_previous=True
            )
        self._group.wait()

    def _resume(self) -> None:
        """Go on from a checkpoint if there is one; losses after it are forgotten."""
        file, losses = self._folder / _CHECKPOINT, self._folder / _LOSSES
        state, is_damaged = _last_state(file)
        self._group.wait()  # until all have read it
        if is_damaged and self._group.is_first:
            file.replace(file.with_name(f"{file.name}.broken"))
            checkpoints.previous(file).replace(file)
            print(f"{file}: damaged, now {file.name}.broken; goes on from the previous one")
        if state is not None:
            if state["key"] != self._key:
                raise MlmaError(
                    f"{file}: of another configuration, stage or training set; choose another "
                    "--out, or delete it to begin anew"
                )
            self.progress = Progress(**state["progress"])
            set_model_state_dict(self._model, state["model"], options=_WHOLE)
            set_optimizer_state_dict(
                self._model, self._optimiser, state["optimiser"], options=_WHOLE
            )
        if self._group.is_first:
            lines = losses.read_text(encoding="utf-8").splitlines(True) if losses.exists() else []
            files.write(losses, "".join(lines[: self.progress.updates]))
            if self.progress.updates:
                print(f"stage {self._stage}: goes on after update {self.progress.updates}")
        self._group.wait()


def _last_state(file: Path) -> tuple[dict[str, Any] | None, bool]:
    """The newest checkpoint that is whole, if any, and whether the newest of all is damaged."""
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
            f"{newest}: damaged, and there is no whole one before; delete it to train again"
        )
    return state, True


def train(
    config: Config,
    stage: Stage,
    data: Sequence[Path],
    out: Path,
    init: Path | None = None,
    group: Group | None = None,
) -> None:
    """Train a stage and write the translator, unless that is done.

    Args:
        config: of the translator; its encoder is that of `init` if there is one.
        stage: 0, 1 or 2.
        data: files of segments.
        out: folder to write into.
        init: what an earlier training wrote; stage 2 needs one.
        group: the processes; None: this one alone, on the CPU.

    Raises:
        MlmaError: as of `read_all`, `model.build`, `model.continued` and `Trainer`; `out` holds
            another training, or another process trains in it.
    """
    group = group or Group(0, 1, torch.device("cpu"))
    with claims.claim(out, "trains in it") if group.is_first else nullcontext():
        _train(config, stage, data, out, init, group)


def _train(
    config: Config,
    stage: Stage,
    data: Sequence[Path],
    out: Path,
    init: Path | None,
    group: Group,
) -> None:
    earlier = _earlier(stage, init)
    # The same weights have other dates on other machines' disks; the data are to be the same.
    weights = group.of_first(_stamps(config, earlier))
    key = _key(config, stage, data, earlier, weights)
    report = _read_report(out)
    if report and report["key"] != key:
        raise MlmaError(f"{out}: holds another training; choose another --out, or delete it")
    if report:
        print(f"stage {stage}: done before, in {out}")
        return
    segments = read_all(data, config.dialogue)
    if stage == 0:
        segments = _with_words(segments, group)
    device = torch.device("cpu") if group.is_sharded else group.device
    if init is None:
        model = models.build(config, device)
    else:
        model = models.continued(config, init, device, trainable=True)
    torch.manual_seed(config.training.seed)
    model.prepare(stage)
    trained = Hearing(model, segments).to(device) if stage == 0 else model
    example = trained.example if stage == 0 else dialogues(model.dialogue)
    if group.is_first:
        out.mkdir(parents=True, exist_ok=True)
        sizes = [(p.numel() / 1e6, p.requires_grad) for p in model.parameters()]
        all_, learns = (
            sum(size for size, is_trained in sizes if is_trained or every)
            for every in (True, False)
        )
        hours = sum(segment.chunks for segment in segments) * CHUNK_SECONDS / 3600
        print(
            f"stage {stage}: {learns:.1f} M of {all_:.1f} M parameters; {len(segments)} segments "
            f"of {hours:.1f} h",
            flush=True,
        )
    group.wait()
    batches = Batches(segments, example, config.training)
    trainer = Trainer(trained, config, stage, batches, group, out, key)
    state = trainer.run()
    if group.is_first:
        models.save(model, stage, state, out, init)
        report = {"key": key, "stage": stage, "updates": trainer.progress.updates}
        files.write(out / _REPORT, json.dumps(report) + "\n")
        for file in (out / _CHECKPOINT, checkpoints.previous(out / _CHECKPOINT)):
            file.unlink(missing_ok=True)
    group.wait()


def _with_words(segments: Sequence[Segment], group: Group) -> list[Segment]:
    """Those in which something is said; says how many are not."""
    spoken = [segment for segment in segments if segment.heard != ""]
    if len(spoken) < len(segments) and group.is_first:
        print(f"stage 0: left out {len(segments) - len(spoken)} segments in which no word ends")
    return spoken


def _earlier(stage: Stage, init: Path | None) -> Mapping[str, Any] | None:
    """The report on the training that this one starts from."""
    if init is None:
        if stage == 2:
            raise MlmaError("stage 2 starts from what stage 1 wrote; give its --out as --init")
        return None
    report = _read_report(init)
    if report is None:
        raise MlmaError(
            f"{init}: holds no finished training ({_REPORT}); run the stage before to its end"
        )
    if report["stage"] > stage:
        raise MlmaError(f"{init}: of stage {report['stage']}; stage {stage} does not follow that")
    return report


def _read_report(folder: Path) -> Mapping[str, Any] | None:
    """What a finished training says of itself; None: there is none."""
    try:
        return json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _key(
    config: Config,
    stage: Stage,
    data: Sequence[Path],
    earlier: Mapping[str, Any] | None,
    weights: Sequence[Stamp],
) -> str:
    """A digest of all that decides what is learnt."""
    options = asdict(config)
    for name in _WITHOUT_EFFECT:
        del options["training"][name]
    del options["decoding"]
    of_stages = [options.pop(f"stage{number}") for number in range(3)]
    options["stage"] = of_stages[stage], stage
    made_from = [options, [digest(path) for path in data], earlier, *weights]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _stamps(config: Config, earlier: Mapping[str, Any] | None) -> list[Stamp]:
    """Of all weights that are loaded; after an earlier training the encoder's are in its report."""
    encoder, llm = config.encoder, config.llm.name
    of_llm = [] if llm == SMOLLM2 else stamps.of_weights(Path(llm))
    if encoder.weights is None or earlier is not None:
        return of_llm
    of_encoder = stamps.of_recogniser if encoder.kind == "conmamba" else stamps.of_weights
    return of_encoder(Path(encoder.weights)) + of_llm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--stage", type=int, choices=(0, 1, 2), required=True)
    parser.add_argument("--config", type=Path, required=True, help="conf/sst/*.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.KEY=VALUE",
        help="in place of what the configuration says; may be given again",
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="what the stage build wrote"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--init", type=Path, help="--out of the training to start from")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="without it a GPU if there is")
    parser.add_argument(
        "--fsdp", action="store_true", help="share parameters out among torchrun's processes"
    )


def run(args: argparse.Namespace) -> None:
    """Train a stage."""
    config = configuration.read(args.config, args.set)
    keep_freed_memory()
    with joined(args.device, args.fsdp) as group:
        train(config, args.stage, args.data, args.out, args.init, group)
