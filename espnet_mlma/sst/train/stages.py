"""Train a translator: encoder and adapter in stage 1, LoRA in the language model in stage 2.

If the configuration has a stage 0, it runs first: CTC pretraining of encoder and adapter on the
language model's tokens (`ctc.py`).

    mlma translate train --stage 1 --config tiny.yaml --data train.jsonl --out exp/1
    torchrun --nproc-per-node 8 -m espnet_mlma.cli translate train --stage 2 \\
        --config wav2vec2_qwen7b.yaml --data train.jsonl --init exp/1 --out exp/2

Run the same command again to resume; on a CPU the result is the same to the bit. `--out` receives
speech.safetensors, config.yaml and, after stage 2, lora/: together they are a translator. It also
receives losses.jsonl, with one line per update.

Source: CMU's IWSLT 2025 Simultaneous Speech Translation System, section 4.1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from espnet_mlma import claims, files
from espnet_mlma.errors import MlmaError
from espnet_mlma.memory import keep_freed_memory
from espnet_mlma.sst import config as configuration
from espnet_mlma.sst import model as models
from espnet_mlma.sst import stamps
from espnet_mlma.sst.config import Config
from espnet_mlma.sst.data.records import Segment
from espnet_mlma.sst.data.shards import digest
from espnet_mlma.sst.grid import CHUNK_SECONDS
from espnet_mlma.sst.llm.model import SMOLLM2
from espnet_mlma.sst.model import Stage
from espnet_mlma.sst.stamps import Stamp
from espnet_mlma.sst.train.ctc import CtcPretraining
from espnet_mlma.sst.train.dataset import Batches, dialogues, read_all
from espnet_mlma.sst.train.parallel import ProcessGroup, process_group
from espnet_mlma.sst.train.trainer import Trainer

_REPORT = "training.json"
# Options that do not change the trained weights.
_WITHOUT_EFFECT = ("read_ahead", "log_updates", "save_updates")


def train(
    config: Config,
    stage: Stage,
    data: Sequence[Path],
    out: Path,
    init: Path | None = None,
    group: ProcessGroup | None = None,
) -> None:
    """Train a stage and write the translator; do nothing if the stage is finished.

    Args:
        config: configuration of the translator; the encoder of `init`, if given, replaces its own.
        stage: 0, 1 or 2.
        data: files of segments.
        out: folder to write to.
        init: folder of the previous stage; required for stage 2.
        group: processes of this training; None: this process alone, on the CPU.

    Raises:
        MlmaError: `out` holds another training or another process trains in it; also errors of
            `read_all`, `model.build`, `model.resumed` and `Trainer`.
    """
    group = group or ProcessGroup(0, 1, torch.device("cpu"))
    with claims.claim(out, "trains in it") if group.is_first else nullcontext():
        _train(config, stage, data, out, init, group)


def _train(
    config: Config,
    stage: Stage,
    data: Sequence[Path],
    out: Path,
    init: Path | None,
    group: ProcessGroup,
) -> None:
    earlier = _earlier(stage, init)
    # Copies of the same weights on other machines have other dates; compare the first machine's.
    weights = group.from_first(_stamps(config, earlier))
    key = _key(config, stage, data, earlier, weights)
    report = _read_report(out)
    if report and report["key"] != key:
        raise MlmaError(f"{out}: holds another training; choose another --out, or delete it")
    if report:
        print(f"stage {stage}: finished before, in {out}")
        return
    segments = read_all(data, config.dialogue)
    if stage == 0:
        segments = _with_words(segments, group)
    device = torch.device("cpu") if group.is_sharded else group.device
    if init is None:
        model = models.build(config, device)
    else:
        model = models.resumed(config, init, device, trainable=True)
    torch.manual_seed(config.training.seed)
    model.prepare(stage)
    if stage == 0:
        trained = CtcPretraining(model, segments).to(device)
        example = trained.example
    else:
        trained, example = model, dialogues(model.dialogue)
    if group.is_first:
        out.mkdir(parents=True, exist_ok=True)
        sizes = [(p.numel() / 1e6, p.requires_grad) for p in model.parameters()]
        total = sum(size for size, _ in sizes)
        trainable = sum(size for size, is_trained in sizes if is_trained)
        hours = sum(segment.chunks for segment in segments) * CHUNK_SECONDS / 3600
        print(
            f"stage {stage}: training {trainable:.1f} M of {total:.1f} M parameters; "
            f"{len(segments)} segments, {hours:.1f} h",
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
        trainer.delete_checkpoints()
    group.wait()


def _with_words(segments: Sequence[Segment], group: ProcessGroup) -> list[Segment]:
    """Return the segments that contain words, and print how many were skipped."""
    spoken = [segment for segment in segments if segment.heard != ""]
    if len(spoken) < len(segments) and group.is_first:
        print(f"stage 0: skipped {len(segments) - len(spoken)} segments in which no word ends")
    return spoken


def _earlier(stage: Stage, init: Path | None) -> Mapping[str, Any] | None:
    """Return the report of the stage that this one starts from."""
    if init is None:
        if stage == 2:
            raise MlmaError("stage 2 needs the output of stage 1; give its --out as --init")
        return None
    report = _read_report(init)
    if report is None:
        raise MlmaError(
            f"{init}: no finished training ({_REPORT} is missing); finish the previous stage first"
        )
    if report["stage"] > stage:
        raise MlmaError(
            f"{init}: written by stage {report['stage']}; stage {stage} cannot start from it"
        )
    return report


def _read_report(folder: Path) -> Mapping[str, Any] | None:
    """Return the report of a finished training, or None."""
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
    """Return a digest of everything that determines the trained weights."""
    options = asdict(config)
    for name in _WITHOUT_EFFECT:
        del options["training"][name]
    del options["decoding"]
    of_stages = [options.pop(f"stage{number}") for number in range(3)]
    options["stage"] = of_stages[stage], stage
    made_from = [options, [digest(path) for path in data], earlier, *weights]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _stamps(config: Config, earlier: Mapping[str, Any] | None) -> list[Stamp]:
    """Return stamps of all loaded weights; `earlier` already covers the encoder's."""
    encoder, llm = config.encoder, config.llm.name
    of_llm = [] if llm == SMOLLM2 else stamps.of_weights(Path(llm))
    if encoder.weights is None or earlier is not None:
        return of_llm
    of_encoder = stamps.of_recogniser if encoder.kind == "conmamba" else stamps.of_weights
    return of_encoder(Path(encoder.weights)) + of_llm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `train`."""
    parser.add_argument("--stage", type=int, choices=(0, 1, 2), required=True)
    parser.add_argument("--config", type=Path, required=True, help="conf/sst/*.yaml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.KEY=VALUE",
        help="override an option of the configuration; repeatable",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="segments written by `build`; repeatable",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--init", type=Path, help="--out of the previous stage")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if available")
    parser.add_argument(
        "--fsdp", action="store_true", help="shard parameters over torchrun's processes"
    )


def run(args: argparse.Namespace) -> None:
    """Run `train`."""
    config = configuration.read(args.config, args.set)
    keep_freed_memory()
    with process_group(args.device, args.fsdp) as group:
        train(config, args.stage, args.data, args.out, args.init, group)
