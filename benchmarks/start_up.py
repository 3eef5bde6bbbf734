"""What a user waits for: imports, loading a model, a file to text.

python benchmarks/start_up.py --model EXPERIMENT --audio FILE [--json FILE] [--threads 2]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import soundfile
from common import arguments, report

PARTS = """
import resource, time
started = time.perf_counter()
import torch
torch.set_num_threads({threads})
import espnet_mlma
recogniser = espnet_mlma.load({model!r})
loaded = time.perf_counter()
recogniser.transcribe({audio!r})
first = time.perf_counter()
for _ in range(5):
    recogniser.transcribe({audio!r})
again = (time.perf_counter() - first) / 5
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(loaded - started, first - loaded, again, peak)
"""


def seconds_of(code: str, repeats: int = 5) -> float:
    """Median wall time of a Python process that runs this code."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--model", required=True, help="experiment folder or packed zip")
    parser.add_argument("--audio", type=Path, required=True, help="a file to transcribe")
    args = parser.parse_args()
    nothing = seconds_of("pass")
    rows = [["python itself", f"{nothing:.3f} s"]]
    for module in ("espnet_mlma", "torch", "espnet_mlma.encoder"):
        rows.append([f"import {module}", f"{seconds_of(f'import {module}') - nothing:.3f} s"])
    for command in (["--help"], ["info", args.model]):
        line = f"from espnet_mlma.cli import main; main({command!r})"
        rows.append([f"mlma {command[0]}", f"{seconds_of(line):.3f} s"])
    code = PARTS.format(threads=args.threads, model=args.model, audio=str(args.audio))
    runs = [
        [float(x) for x in subprocess.check_output([sys.executable, "-c", code]).split()[-4:]]
        for _ in range(3)
    ]
    load, first, again, peak = (statistics.median(of) for of in zip(*runs, strict=True))
    duration = soundfile.info(args.audio).duration
    rows += [
        ["load a model, imports included", f"{load:.2f} s"],
        [f"first file to text ({duration:.1f} s of audio)", f"{first:.3f} s"],
        ["the same again", f"{again:.3f} s, RTF {again / duration:.4f}"],
        ["peak memory", f"{peak:.2f} GiB"],
    ]
    report("Start-up", ["what", "median"], rows, args)


if __name__ == "__main__":
    main()
