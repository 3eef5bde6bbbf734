"""Measure the speed and the word errors of bfloat16 and int8 linear layers on a CPU.

    python benchmarks/precision.py [--model EXPERIMENT --data dump/raw/test_x ...] [--json FILE]

Times are of the 31.6 M encoder with random weights, error rates of the given model.
"""

from __future__ import annotations

from common import milliseconds, model_arguments, prepare, report, time_together
from encoders import batch, conmamba, runner

import espnet_mlma
from espnet_mlma.data import tables as datadir
from espnet_mlma.decode.folder import decode_folder
from espnet_mlma.evaluation.score.align import count_errors, total_errors

PRECISIONS = ("float32", "bfloat16", "int8")


def speed(args) -> None:
    encoders = {precision: conmamba(precision) for precision in PRECISIONS}
    sizes = ((5, 1), (15, 1), (30, 1), (15, 8))
    times = {
        size: time_together(
            {p: runner(encoder, *batch(*size)) for p, encoder in encoders.items()}, 9, 3
        )
        for size in sizes
    }
    rows = [
        [
            precision,
            *(
                f"{milliseconds(times[size][precision])} "
                f"({times[size]['float32'] / times[size][precision]:.2f}x)"
                for size in sizes
            ),
        ]
        for precision in PRECISIONS
    ]
    header = ["linear layers", *(f"{n} x {seconds} s (ms)" for seconds, n in sizes)]
    report("Encoder by precision, 31.6 M", header, rows, args)


def error_rates(args) -> None:
    texts = {folder: datadir.read(folder / "text", "stage 4") for folder in args.data}
    rows, exact = [], {}
    for precision in PRECISIONS:
        recogniser = espnet_mlma.load(args.model, device="cpu", precision=precision)
        words, characters, changed = [], [], 0
        for folder, references in texts.items():
            for key, transcript in decode_folder(recogniser, folder, 60)[0].items():
                reference, text = references[key], transcript.text
                words.append(count_errors(reference.split(), text.split()))
                characters.append(count_errors(list(reference), list(text)))
                changed += text != exact.setdefault(key, text)
        rates = (total_errors(counts).rate for counts in (words, characters))
        rows.append([precision, *(f"{rate:.2f}" for rate in rates), changed])
    header = ["linear layers", "WER (%)", "CER (%)", "texts that changed"]
    title = f"Errors by precision, {len(exact)} utterances"
    report(title, header, rows, args)


def main() -> None:
    args = model_arguments(__doc__.splitlines()[0]).parse_args()
    prepare(args)
    speed(args)
    if args.model:
        error_rates(args)


if __name__ == "__main__":
    main()
