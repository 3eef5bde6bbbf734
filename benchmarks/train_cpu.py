"""A training step on a CPU: ConMamba beside ESPnet's Conformer and E-Branchformer.

    python benchmarks/train_cpu.py [--json FILE] [--threads 2] [--steps 4]

Seven utterances of 15 s a batch, dropout as in training, CTC over 31 symbols, AdamW. Every encoder
runs in a process of its own, for its peak memory, in turn and twice.
"""

from __future__ import annotations

import json
import statistics
import time

import torch
from common import in_own_process, peak_of_process, prepare, report, timed_arguments
from encoders import batch, build

NAMES = ("ConMamba", "Conformer", "Conformer, our front-end", "E-Branchformer, SDPA")
SECONDS, UTTERANCES, SYMBOLS, TARGET = 15, 7, 31, 200


def measure(name: str, steps: int) -> dict:
    """Seconds of each step and the peak memory of this process."""
    encoder = build(name).train()
    head = torch.nn.Linear(256, SYMBOLS)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 1e-4)
    x, lengths = batch(SECONDS, UTTERANCES)
    targets = torch.randint(1, SYMBOLS, (UTTERANCES, TARGET))
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        frames, frame_lengths, _ = encoder(x, lengths)
        log_probs = head(frames).log_softmax(-1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(
            log_probs, targets, frame_lengths, torch.full((UTTERANCES,), TARGET)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds[1:], "peak": peak_of_process()}  # the first step warms up


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="steps timed in each process")
    parser.add_argument("--one", choices=NAMES, help="measure this one and print JSON")
    args = parser.parse_args()
    prepare(args)
    if args.one:
        print(json.dumps(measure(args.one, args.steps)))
        return
    found: dict[str, list[dict]] = {name: [] for name in NAMES}
    for _ in range(2):
        for name in NAMES:
            options = ("--one", name, "--steps", args.steps)
            found[name].append(in_own_process(__file__, args, *options))
    step = {
        name: statistics.median(s for run in runs for s in run["seconds"])
        for name, runs in found.items()
    }
    rows = [
        [
            name,
            f"{step[name]:.2f}",
            f"{SECONDS * UTTERANCES / step[name]:.1f}",
            f"{step[name] / step['ConMamba']:.2f}x",
            f"{max(run['peak'] for run in found[name]) / 2**30:.2f}",
        ]
        for name in NAMES
    ]
    header = ["encoder", "step (s)", "audio s per s", "ConMamba is", "peak memory (GiB)"]
    title = f"Training step, {UTTERANCES} x {SECONDS} s"
    report(title, header, rows, args)


if __name__ == "__main__":
    main()
