"""Duration of epochs of trained experiments, from ESPnet's logs.

python benchmarks/epochs.py NAME=EXPERIMENT [NAME=EXPERIMENT ...] [--json FILE]
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from common import arguments, report

# `train_time` is the mean time of a step without waiting for data.
_RESULT = re.compile(
    r" (\d+)epoch results: \[train\] iter_time=([\d.]+),.*? train_time=([\d.]+), .*?"
    r"total_count=(\d+), \[valid\]"
)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+", metavar="NAME=EXPERIMENT")
    args = parser.parse_args()
    rows, seen = [], {}
    for named in args.experiments:
        name, _, folder = named.partition("=")
        steps_before, steps, seconds = 0, [], []
        for _, wait, step, total in _RESULT.findall((Path(folder) / "train.log").read_text()):
            steps.append(int(total) - steps_before)
            seconds.append((float(wait) + float(step)) * steps[-1])
            steps_before = int(total)
        seen[name] = statistics.median(seconds)
        faster = next(iter(seen.values())) / seen[name]
        rows.append(
            [name, len(seconds), steps[0], f"{seen[name]:.0f}", f"{seen[name] / steps[0]:.3f}"]
            + [f"{faster:.2f}x"]
        )
    header = ["training", "epochs", "steps", "an epoch (s)", "a step (s)", "faster"]
    report("Epochs of the small recipe", header, rows, args)


if __name__ == "__main__":
    main()
