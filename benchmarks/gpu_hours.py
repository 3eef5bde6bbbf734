"""Hours that the paper's models train for on this machine, from the time of a training step.

    python benchmarks/gpu_hours.py [--json FILE] [--threads 2] [--speech 30] [--rates FILE]

Every model is built by ESPnet from its configuration, with 31 symbols. A step has features,
SpecAugment, loss and backward. Clips have 2 to 18 s and random text of 14 symbols a second. On a
GPU a step has a whole batch of the configuration, in the precision that ESPnet's trainer would
use; on a CPU it has --speech seconds in float32, which only compares the models. The optimiser is
timed separately, because it steps once an update. Loading audio is not included, nor the draw
before an epoch, which `benchmarks/sampler.py` times.
--rates FILE takes seconds from a JSON file of this script, for example from another machine, and
the updates from the current configurations.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common import ROOT, prepare, report, time_together, timed_arguments
from espnet2.tasks.asr import ASRTask

import espnet_mlma  # noqa: F401  registers the encoders
from espnet_mlma.errors import MlmaError, run_cli

SAMPLE_RATE = 16000
SYMBOLS = ["<blank>", "<unk>", "<space>", *"abcdefghijklmnopqrstuvwxyz'", "<sos/eos>"]
SYMBOLS_PER_SECOND = 14
MODELS = {
    "ConMamba 31.6 M": ("conmamba",),
    "ConMamba 42.0 M": ("conmamba_42m",),
    "Conformer 28.8 M": ("conformer", "--encoder", "conformer_cnn4"),
    "ConMamba 31.6 M, CR-CTC": (
        *("conmamba", "--model", "mlma_ctc", "--model_conf", "cr_ctc_weight=0.2"),
        *("--batch_bins", "6800000"),  # half, for its two views
    ),
    "ConMamba, best recipe": ("conmamba_best",),
}
Run = Callable[[], None]
FROM_RATES = "from the rates measured on"  # in the titles of tables that are not of measurements
HEADER = (
    "model",
    "updates",
    "speech (h)",
    "s per s of speech",
    "optimiser (s)",
    "hours",
)


@dataclass(frozen=True)
class Rate:
    """Seconds of forward and backward per second of speech, and of the optimiser's step."""

    speech: float
    optimiser: float


def arguments_of(config: str, *options: str) -> argparse.Namespace:
    """What ESPnet's trainer gets from a configuration."""
    path = ROOT / "conf" / f"train_asr_{config}.yaml"
    command = ["--config", str(path), "--output_dir", "unused", *options]
    args = ASRTask.get_parser().parse_args(command)
    args.token_list, args.token_type = SYMBOLS, "char"
    return args


def clips(seconds: float, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch of noise and random text, about so many seconds, 10 s a clip."""
    torch.manual_seed(0)
    lengths = torch.linspace(2, 18, max(2, round(seconds / 10)))
    symbols = (lengths * SYMBOLS_PER_SECOND).long()
    samples = (lengths * SAMPLE_RATE).long()
    batch = {
        "speech": 0.1 * torch.randn(len(lengths), int(samples.max())),
        "speech_lengths": samples,
        "text": torch.randint(2, len(SYMBOLS) - 1, (len(lengths), int(symbols.max()))),
        "text_lengths": symbols,
    }
    return {name: value.to(device) for name, value in batch.items()}


def training(args: argparse.Namespace, speech: float | None) -> tuple[Run, Run, float]:
    """A step forward and backward of a configuration, its optimiser's, and the seconds of speech.

    Args:
        args: see `arguments_of`.
        speech: seconds of a batch; None: as the configuration has them.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = ASRTask.build_model(args).to(device).train()
    (optimiser,) = ASRTask.build_optimizers(args, model)
    batch = clips(speech or args.batch_bins / SAMPLE_RATE, device)
    in_bf16 = args.use_amp and device.type == "cuda" and torch.cuda.is_bf16_supported()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
            loss, _, _ = model(**batch)
        loss.backward()
        wait()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
        optimiser.step()
        optimiser.zero_grad()
        wait()

    return step, update, int(batch["speech_lengths"].sum()) / SAMPLE_RATE


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(
    configurations: dict[str, argparse.Namespace], speech: float | None, repeats: int
) -> dict[str, Rate]:
    """Time the training of each configuration on this machine, in turn."""
    runs: dict[str, Run] = {}
    heard = {}
    for name, args in configurations.items():
        runs[f"{name} step"], runs[f"{name} update"], heard[name] = training(args, speech)
    seconds = time_together(runs, repeats)
    return {
        name: Rate(seconds[f"{name} step"] / heard[name], seconds[f"{name} update"])
        for name in configurations
    }


def row(name: str, args: argparse.Namespace, rate: Rate) -> list[str]:
    """Hours of a whole training at this rate, on one device."""
    iterations = args.num_iters_per_epoch * args.max_epoch
    updates = iterations // args.accum_grad
    heard = iterations * args.batch_bins / SAMPLE_RATE
    hours = (heard * rate.speech + updates * rate.optimiser) / 3600
    seconds = (f"{rate.speech:.3g}", f"{rate.optimiser:.3g}")
    return [name, f"{updates:,}", f"{heard / 3600:,.0f}", *seconds, f"{hours:,.0f}"]


def read_rates(path: Path) -> tuple[str, dict[str, Rate]]:
    """What an earlier run has measured, and on what.

    Raises:
        MlmaError: it is not a file of this script, or of more than one machine.
    """
    try:
        tables = json.loads(path.read_text(encoding="utf-8")).items()
        measured = [
            table
            for title, table in tables
            if tuple(table["header"]) == HEADER and FROM_RATES not in title
        ]
        machine = measured[0]["machine"]
        rates = {name: Rate(float(s), float(o)) for name, _, _, s, o, _ in measured[0]["rows"]}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, IndexError):
        raise MlmaError(
            f"--rates {path}: not a JSON of gpu_hours.py; make one with --json"
        ) from None
    if len(measured) > 1:
        raise MlmaError(f"--rates {path}: of {len(measured)} machines; give each its own --json")
    return f"{machine.get('gpu', machine['cpu'])}, {machine['date']}", rates


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument("--speech", type=float, default=30, help="seconds of a batch on a CPU")
    parser.add_argument("--repeats", type=int, default=3, help="steps whose median counts")
    parser.add_argument("--rates", type=Path, help="take the seconds from this JSON")
    args = parser.parse_args()
    prepare(args)
    on_gpu = torch.cuda.is_available()
    if args.rates:
        where, rates = read_rates(args.rates)
        title = f"Hours of training, one device, {FROM_RATES} {where}"
    elif on_gpu:
        title = f"Hours of training on one {torch.cuda.get_device_name()}"
    else:
        title = "Hours of training on this CPU, float32"
    configurations = {name: arguments_of(*options) for name, options in MODELS.items()}
    if not args.rates:
        rates = measure(configurations, None if on_gpu else args.speech, args.repeats)
    missing = [name for name in configurations if name not in rates]
    if missing:
        raise MlmaError(f"--rates {args.rates}: nothing for '{missing[0]}'; measure again")
    rows = [row(name, of, rates[name]) for name, of in configurations.items()]
    report(title, HEADER, rows, args)


if __name__ == "__main__":
    run_cli(main)
