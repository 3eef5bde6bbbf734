"""The encoder on a GPU: training in bf16 by scan backend, and the length at which it overtakes.

    python benchmarks/encoder_gpu.py [--json FILE]

600 s of audio a batch at every length, 18 layers of 256, autocast to bf16, forward and backward.
"cuda" is mamba-ssm's kernel through `espnet_mlma.scan.cuda`, which pads, reverses and transposes
its input, with PyTorch's convolutions.
Without a GPU it prints an error and exits with status 2.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys

import torch
from common import arguments, report
from encoders import batch, build, products_of

from espnet_mlma.scan import available_backends

SECONDS_OF_AUDIO = 600
LENGTHS = (5, 15, 30, 60, 120, 300)
PEERS = ("Conformer", "Conformer, our front-end", "E-Branchformer, SDPA")


@contextlib.contextmanager
def scan_backend(name: str | None):
    """Have the scan run by a named backend; None leaves the choice to it."""
    if name is not None:
        os.environ["ESPNET_MLMA_SCAN"] = name
    try:
        yield
    finally:
        os.environ.pop("ESPNET_MLMA_SCAN", None)


def matrix_rate() -> float:
    """What the card's bf16 matrix products reach, in FLOP/s, on a large square one."""
    size = 8192
    a, b = torch.randn(2, size, size, device="cuda", dtype=torch.bfloat16)
    return 2 * size**3 / median_seconds(lambda: a @ b, 10)


def median_seconds(run, repeats: int) -> float:
    for _ in range(3):
        run()
    seconds = []
    for _ in range(repeats):
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        run()
        ended.record()
        ended.synchronize()
        seconds.append(started.elapsed_time(ended) / 1e3)
    return statistics.median(seconds)


def measure(encoder, seconds: int, train: bool) -> tuple[float, float] | None:
    """Median seconds of a step and its peak memory in bytes; None when memory runs out."""
    x, lengths = (t.cuda() for t in batch(seconds, SECONDS_OF_AUDIO // seconds))
    encoder.train(train)

    def step():
        with torch.autocast("cuda", torch.bfloat16), torch.set_grad_enabled(train):
            frames = encoder(x, lengths)[0]
        if train:
            frames.float().square().mean().backward()
            encoder.zero_grad(set_to_none=True)

    try:
        torch.cuda.reset_peak_memory_stats()
        taken = median_seconds(step, 10)
        return taken, torch.cuda.max_memory_allocated()
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def models():
    """Name, encoder and scan backend of everything that is compared."""
    for backend in available_backends():
        if backend in ("triton", "cuda"):
            yield f"ConMamba, {backend}", build("ConMamba").cuda(), backend
    compiled = build("ConMamba").cuda()
    for block in compiled.blocks:
        block.compile(dynamic=True, fullgraph=True)
    yield "ConMamba, torch.compile", compiled, None
    del compiled  # its memory would count as the next one's
    for name in PEERS:
        yield name, build(name).cuda(), None


def main() -> None:
    args = arguments(__doc__.splitlines()[0]).parse_args()
    if not torch.cuda.is_available():
        print("error: no GPU here", file=sys.stderr)
        raise SystemExit(2)
    rate = matrix_rate()
    flops = sum(
        2 * a.size(0) * a.size(1) * b.size(1)
        for a, b in products_of(build("ConMamba"), *batch(SECONDS_OF_AUDIO))
    )
    for train, what in ((True, "forward and backward"), (False, "forward")):
        rows = []
        for name, encoder, backend in models():
            cells = []
            for seconds in LENGTHS:
                with scan_backend(backend):
                    found = measure(encoder, seconds, train)
                if found is None:
                    cells.append("out of memory")
                    continue
                taken, peak = found
                share = flops * (3 if train else 1) / taken / rate
                mark = f", {100 * share:.0f} %" if name.startswith("ConMamba") else ""
                cells.append(f"{SECONDS_OF_AUDIO / taken:.0f} ({peak / 2**30:.1f} GiB{mark})")
            rows.append([name, *cells])
        header = ["audio s per s", *(f"{seconds} s" for seconds in LENGTHS)]
        title = f"bf16, {what}; memory; share of {rate / 1e12:.0f} TFLOP/s measured"
        report(title, header, rows, args)


if __name__ == "__main__":
    main()
