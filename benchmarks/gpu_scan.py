#!/usr/bin/env python3
"""The bidirectional selective scan on a GPU: ours in Triton beside mamba-ssm's CUDA kernel.

    benchmarks/gpu_scan.py --json gpu_scan.json

Both directions and their gate, forward alone and forward with backward, at the shapes of the
encoder. Prints a Markdown table and writes the same as JSON. Beside each time stands the bound of
the card: the time its measured copy bandwidth, exponentials or multiply-adds would take for what
any scan must do. mamba-ssm is left out where it is not installed; its time includes what
`espnet_mlma.scan.cuda` does for it: masks, reversal, transposition.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from espnet_mlma.arguments import ArgumentParser, first_line
from espnet_mlma.scan import cuda, reference, triton
from espnet_mlma.scan.rows import Direction, Rows

RUNS, WARM_UP = 20, 5
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def make_inputs(batch: int, time: int, channel: int, state: int, dtype: torch.dtype):
    """Make both directions, (batch, time, ...), and the gate; step sizes as in a new Mamba."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device="cuda")

    def direction(reverse):
        u, delta = normal(batch, time, channel).to(dtype), normal(batch, time, channel).to(dtype)
        B, C = normal(batch, time, 2 * state).to(dtype).split(state, -1)
        A = -torch.arange(1.0, state + 1, device="cuda").expand(channel, state).contiguous()
        return Direction(u, delta, A, B, C, normal(channel), normal(channel) - 4, reverse=reverse)

    return [direction(False), direction(True)], normal(batch, time, channel).to(dtype)


def ours(directions, z, train: bool) -> list[Tensor]:
    """Compute the output; with `train` also the gradients of its sum."""
    batch, time, channel = z.shape
    first = torch.arange(batch, device="cuda") * time
    rows = Rows(first, torch.full_like(first, time))
    packed = [d.map_frames(lambda x: x.flatten(0, 1)) for d in directions]
    gate = z.flatten(0, 1)
    out, _, starts = triton.scan_forward(packed, gate, rows, True, keep=train)
    if not train:
        return [out]
    *grads, grad_z = triton.scan_backward(
        packed, gate, rows, True, starts, torch.ones_like(out), None
    )
    of_fields = [g for g in grads if g.numel()]
    return [out, *(g[i] for i in range(len(packed)) for g in of_fields), grad_z]


def map_tensors(function: Callable, direction: Direction) -> Direction:
    return direction.map_frames(function).map_constants(function)


def by_autograd(run: Callable) -> Callable:
    """Compute the same with a scan of one direction that PyTorch differentiates."""

    def both(directions, z, train: bool) -> list[Tensor]:
        directions = [
            map_tensors(lambda x: x.detach().requires_grad_(train), d) for d in directions
        ]
        z = z.detach().requires_grad_(train)
        leaves = [x for d in directions for x in d if isinstance(x, Tensor)] + [z]
        out = sum(run(d, z, True, None)[0] for d in directions)
        return [out, *(torch.autograd.grad(out.sum(), leaves) if train else ())]

    return both


def largest_error(scan: Callable, dtype: torch.dtype) -> float:
    """Compare output and gradients with the fp64 reference, each relative to its largest value."""
    directions, z = make_inputs(2, 70, 64, 16, dtype)
    exact = [map_tensors(Tensor.double, d) for d in directions]
    expected = by_autograd(reference.selective_scan)(exact, z.double(), True)
    actual = scan(directions, z, True)
    return max(
        ((a.reshape(e.shape).double() - e).abs().max() / e.abs().max()).item()
        for a, e in zip(actual, expected, strict=True)
    )


def seconds(call: Callable[[], object]) -> float:
    """The median time of a call on the GPU, its input in memory rather than in the L2 cache."""
    times = []
    flush = torch.empty(1 << 28, device="cuda")
    for run in range(WARM_UP + RUNS):
        # While the GPU clears a gigabyte and idles, the host queues the whole call, as it does
        # in training; else launches would be timed.
        flush.zero_()
        torch.cuda._sleep(4_000_000)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        if run >= WARM_UP:
            times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def extra_memory(call: Callable[[], object]) -> int:
    """Bytes a call takes at its peak beyond what was there."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() - before


def measure_card() -> dict[str, float]:
    """Bytes, exponentials and multiply-adds a second."""
    source = torch.empty(1 << 28, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() * 4 / seconds(lambda: target.copy_(source))

    import triton as compiler
    import triton.language as tl

    @compiler.jit
    def spin(out, steps, EXPONENTIAL: tl.constexpr):
        at = tl.program_id(0) * 1024 + tl.arange(0, 1024)
        x = at * 1e-9
        for _ in range(steps):
            for _ in tl.static_range(16):
                x = tl.exp2(x) if EXPONENTIAL else x * 0.999 + 1e-3
        tl.store(out + at, x)

    programs, steps = 16 * torch.cuda.get_device_properties(0).multi_processor_count, 1000
    out = torch.empty(programs * 1024, device="cuda")
    rates = {"bytes": bandwidth}
    for name, exponential in (("exponentials", True), ("multiply-adds", False)):
        time = seconds(lambda which=exponential: spin[(programs,)](out, steps, which))
        rates[name] = programs * 1024 * steps * 16 / time
    return rates


def work(batch: int, time: int, channel: int, state: int, size: int, train: bool) -> dict:
    """What any scan in both directions must do: every input read once a pass, every result written.

    Forward: one exponential and four multiply-adds for a state and step (dt A, x B, h, y).
    Backward: the exponential and the states again, and eight more.
    """
    steps = batch * time
    # u and delta twice, z, out; then also grad_out, and the gradients of the five.
    wide, narrow = (6 + 6 + 5, 4 + 4 + 4) if train else (6, 4)
    cells = 2 * steps * channel * state
    return {
        "bytes": steps * size * (wide * channel + narrow * state),
        "exponentials": cells * (2 if train else 1),
        "multiply-adds": cells * (4 + 3 + 8 if train else 4),
    }


def main() -> int:
    parser = ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--channel", type=int, default=512)
    parser.add_argument("--state", type=int, default=16)
    parser.add_argument("--times", type=int, nargs="+", default=[250, 500, 1000, 2000, 3000])
    args = parser.parse_args()
    if not (torch.cuda.is_available() and triton.is_available()):
        print("gpu_scan: needs a CUDA GPU and Triton; found none here", file=sys.stderr)
        return 2
    scans = {"ours": ours}
    if cuda.is_available():
        scans["mamba-ssm"] = by_autograd(cuda.selective_scan)
    rates = measure_card()
    report = {
        "card": torch.cuda.get_device_name(), "torch": torch.__version__,
        "batch": args.batch, "channel": args.channel, "state": args.state, "rates": rates,
        "errors": {
            name: {scan: largest_error(run, dtype) for scan, run in scans.items()}
            for name, dtype in DTYPES.items()
        },
        "rows": [],
    }  # fmt: skip
    print(f"{report['card']}: {', '.join(f'{v:.3g} {k}/s' for k, v in rates.items())}")
    for name, errors in report["errors"].items():
        found = ", ".join(f"{scan} {error:.1e}" for scan, error in errors.items())
        print(f"Largest error in {name}, relative to fp64: {found}")
    print("\n| time | type | pass | scan | ms | bound, ms | of it | set by | extra MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for time in args.times:
        for name, dtype in DTYPES.items():
            directions, z = make_inputs(args.batch, time, args.channel, args.state, dtype)
            for train in (False, True):
                todo = work(args.batch, time, args.channel, args.state, z.element_size(), train)
                bounds = {kind: amount / rates[kind] for kind, amount in todo.items()}
                bound, kind = max((bound, kind) for kind, bound in bounds.items())
                for scan, run in scans.items():
                    call = lambda run=run, train=train: run(directions, z, train)  # noqa: B023, E731
                    row = {
                        "time": time, "type": name, "scan": scan,
                        "pass": "forward, backward" if train else "forward",
                        "seconds": seconds(call), "bounds": bounds, "set by": kind,
                        "extra bytes": extra_memory(call),
                    }  # fmt: skip
                    report["rows"].append(row)
                    print(
                        f"| {time} | {name} | {row['pass']} | {scan} | {row['seconds'] * 1e3:.3f} "
                        f"| {bound * 1e3:.3f} | {bound / row['seconds']:.0%} | {kind} "
                        f"| {row['extra bytes'] / 2**20:.0f} |"
                    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
