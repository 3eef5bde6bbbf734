"""Encoding on a CPU: ConMamba beside its own matrix products and beside ESPnet's encoders.

    python benchmarks/encoder_cpu.py [--json FILE] [--threads 2] [--parts products peers long]

All encoders have 18 layers of 256, about 31 M parameters and random weights, fp32, evaluation;
ConMamba has its linear layers packed, as `espnet_mlma.load` leaves them.
"""

from __future__ import annotations

import json

import torch
from common import (
    in_own_process,
    milliseconds,
    peak_of_process,
    prepare,
    report,
    time_together,
    timed_arguments,
)
from encoders import BUILDERS, batch, build, conmamba, products_of, runner


def against_products(args) -> None:
    """The time of the encoder over the time of torch.mm on the same shapes."""
    encoder = conmamba()
    plain = build("ConMamba")
    compiled = build("ConMamba")
    for block in compiled.blocks:
        block.compile(dynamic=True, fullgraph=True)
    rows = []
    for seconds, utterances in ((5, 1), (15, 1), (30, 1), (15, 8)):
        x, lengths = batch(seconds, utterances)
        operands = products_of(plain, x, lengths)

        def products(operands=operands):
            for a, b in operands:
                torch.mm(a, b)

        times = time_together(
            {
                "packed": runner(encoder, x, lengths),
                "encoder": runner(plain, x, lengths),
                "compiled": runner(compiled, x, lengths),
                "products": products,
            },
            repeats=15 if seconds * utterances < 60 else 7,
            warm_up=3,
        )
        gflop = sum(2 * a.size(0) * a.size(1) * b.size(1) for a, b in operands) / 1e9
        rows.append(
            [
                f"{utterances} x {seconds} s",
                milliseconds(times["products"]),
                f"{gflop / times['products']:.0f}",
                *(
                    f"{milliseconds(times[name])} ({times[name] / times['products']:.2f})"
                    for name in ("packed", "encoder", "compiled")
                ),
            ]
        )
    header = [
        "audio", "its products (ms)", "GFLOP/s", "encoder (ms, ratio)", "not packed",
        "torch.compile",
    ]  # fmt: skip
    report("ConMamba and its own matrix products", header, rows, args)


def against_peers(args) -> None:
    encoders = {name: build(name) for name in BUILDERS}
    sizes = {
        name: sum(p.numel() for p in encoder.parameters()) / 1e6
        for name, encoder in encoders.items()
    }
    encoders["ConMamba"] = conmamba()
    for precision in ("bfloat16", "int8"):
        encoders[f"ConMamba, {precision}"] = conmamba(precision)
        sizes[f"ConMamba, {precision}"] = sizes["ConMamba"]
    times = {}
    lengths_in_seconds = (5, 15, 30, 120)
    for seconds in lengths_in_seconds:
        runs = {name: runner(encoder, *batch(seconds)) for name, encoder in encoders.items()}
        times[seconds] = time_together(runs, {5: 15, 15: 9, 30: 5, 120: 3}[seconds])
    rows = []
    for name in encoders:
        cells = [
            f"{milliseconds(times[s][name])} ({times[s][name] / times[s]['ConMamba']:.1f}x)"
            for s in lengths_in_seconds
        ]
        rows.append([name, f"{sizes[name]:.1f}", *cells])
    header = ["encoder", "M", *(f"{s} s (ms)" for s in lengths_in_seconds)]
    report("One utterance, against ESPnet's encoders", header, rows, args)


def one_pass(minutes: int) -> dict[str, float]:
    """Seconds to encode so much audio in one pass, and the peak memory of this process."""
    run = runner(conmamba(), *batch(60 * minutes))
    seconds = time_together({"": run}, repeats=3 if minutes < 60 else 1)[""]
    return {"seconds": seconds, "peak": peak_of_process()}


def long_audio(args) -> None:
    rows = []
    for minutes in (2, 15, 60):
        found = in_own_process(__file__, args, "--minutes", minutes)
        rows.append(
            [
                f"{minutes} min",
                f"{found['seconds']:.2f}",
                milliseconds(found["seconds"] / minutes),
                f"{found['peak'] / 2**30:.2f}",
            ]
        )
    header = ["audio in one pass", "seconds", "a minute of audio (ms)", "peak of process (GiB)"]
    report("ConMamba, long audio", header, rows, args)


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    parts = {"products": against_products, "peers": against_peers, "long": long_audio}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--minutes", type=int, help="time one pass of this length, print JSON")
    args = parser.parse_args()
    prepare(args)
    if args.minutes:
        print(json.dumps(one_pass(args.minutes)))
        return
    for part in args.parts:
        parts[part](args)


if __name__ == "__main__":
    main()
