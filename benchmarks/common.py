"""Shared parts of the benchmarks: timing, machine, tables and JSON."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.files import write
from espnet_mlma.memory import keep_freed_memory

ROOT = Path(__file__).parent.parent


def arguments(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options of all benchmarks."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def timed_arguments(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options of benchmarks that time PyTorch on a CPU; see `prepare`."""
    parser = arguments(description)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and OpenMP")
    parser.add_argument(
        "--give-back", action="store_true", help="let malloc return freed memory to the system"
    )
    return parser


def model_arguments(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options of benchmarks of a trained model."""
    parser = timed_arguments(description)
    parser.add_argument("--model", help="experiment folder of a trained model")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="formatted test sets")
    return parser


def prepare(args: argparse.Namespace) -> None:
    """Set threads and malloc, alike for all peers."""
    torch.set_num_threads(args.threads)
    if not args.give_back:
        keep_freed_memory()


def time_together(
    runs: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1
) -> dict[str, float]:
    """Time functions in turn, so that noise of the machine affects all alike.

    Args:
        runs: functions by name.
        repeats: timed runs of each.
        warm_up: runs of each before.

    Returns:
        Median seconds by name.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(of) for name, of in seconds.items()}


def peak_bytes(run: Callable[[], object]) -> int:
    """Measure how far resident memory rises while `run` runs."""
    # Memory freed by earlier runs must not hide the rise.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def machine() -> dict[str, str]:
    """Describe processor, GPU if there is one, versions and commit."""
    found = {
        "cpu": _processor(Path("/proc/cpuinfo").read_text()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor(cpuinfo: str) -> str:
    """Describe the processor; family and model identify generations that virtual machines hide."""
    fields = [line.partition(":") for line in cpuinfo.splitlines()]
    values = {key.strip(): value.strip() for key, _, value in reversed(fields)}
    name = f"{os.cpu_count()} x {values.get('model name', platform.machine())}"
    if "cpu family" not in values:
        return name
    return f"{name} (family {values['cpu family']}, model {values['model']})"


def _commit() -> str:
    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = "+" if git("status", "--porcelain", "espnet_mlma") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table; all columns but the first are right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|:--|" + "--:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def report(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]], args: argparse.Namespace
) -> None:
    """Print a table and its machine, and write both as JSON.

    Args:
        title: line above the table, and its key in the JSON file.
        header, rows: the table.
        args: arguments of the benchmark.
    """
    about = machine()
    if hasattr(args, "threads"):
        about["threads"] = str(args.threads)
    if getattr(args, "give_back", False):
        title += ", freed memory given back"
    print(f"{title}\n\n{table(header, rows)}\n")
    print(", ".join(f"{key} {value}" for key, value in about.items()), end="\n\n", flush=True)
    if args.json is not None:
        save(args.json, title, header, rows, about)


def save(
    file: Path,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    about: Mapping[str, str],
) -> None:
    """Write a table and its machine to a JSON file, in place of the table with the same title.

    If the figures are equal, the earlier entry stays, with its machine.
    """
    known = json.loads(file.read_text()) if file.exists() else {}
    figures = {"header": list(header), "rows": [list(r) for r in rows]}
    if figures.items() <= known.get(title, {}).items():
        return
    known[title] = {"machine": about} | figures
    write(file, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def peak_of_process() -> int:
    """Return the peak memory of this process in bytes."""
    return _status("VmHWM")  # getrusage's peak starts at that of the parent process


def in_own_process(script: str, args: argparse.Namespace, *options: object) -> dict:
    """Run a benchmark script in a new process and return the JSON of its last line."""
    command = [sys.executable, script, "--threads", args.threads, *options]
    command += ["--give-back"] if args.give_back else []
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def milliseconds(seconds: float) -> str:
    """Format seconds in ms with three significant digits."""
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"
