"""`mlma bench`: measure the speed of a model on this machine."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

from espnet_mlma.cli import model
from espnet_mlma.cli.parser import Parser, add_model_options, check_stdout, describe
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.numbers import natural, positive

if TYPE_CHECKING:
    import numpy as np

REPEATS = 3


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma bench --model exp/asr_small --seconds 5 30 --threads 1 --audio talk.wav\n"
        "  prints the time from samples in memory to text, for 5 s and 30 s of talk.wav repeated",
    )
    add_model_options(parser)
    parser.add_argument(
        "--seconds",
        nargs="+",
        type=positive,
        default=[5.0, 30.0, 120.0],
        metavar="S",
        help="lengths of audio (default: 5 30 120)",
    )
    parser.add_argument("--threads", type=natural, metavar="N", help="CPU threads")
    parser.add_argument(
        "--audio",
        metavar="FILE",
        help="speech, repeated to each length (default: noise; the best path costs the same)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Load a model and print the median time of three recognitions of each length."""
    check_stdout()
    start = time.perf_counter()
    model.choose(arguments.model)  # a missing model fails before the slow imports
    import_espnet()

    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    imported = time.perf_counter()
    name, recogniser = model.load(arguments)
    loaded = time.perf_counter()
    speech = samples_of(arguments.audio)
    device = recogniser.acoustic.device
    print(f"{name}, {arguments.precision}, {device}, {torch.get_num_threads()} threads")
    print(f"import of ESPnet {imported - start:.2f} s, loading {loaded - imported:.2f} s")
    print(f"{'audio (s)':>10}{'ms':>10}{'x real time':>13}")
    for seconds in arguments.seconds:
        spent = median_seconds(recogniser, repeated(speech, seconds))
        print(f"{seconds:10g}{1000 * spent:10.1f}{seconds / spent:13.1f}", flush=True)


def samples_of(file: str | None) -> np.ndarray:
    """Return the samples (time,) of a file at 16 kHz; without a file, 1 s of noise."""
    import numpy as np

    from espnet_mlma.audio import SAMPLE_RATE, audio_blocks

    if file is not None:
        return np.concatenate(list(audio_blocks(file)))
    return np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)


def repeated(samples: np.ndarray, seconds: float) -> np.ndarray:
    """Repeat samples (time,) up to a length in seconds."""
    import numpy as np

    from espnet_mlma.audio import SAMPLE_RATE

    return np.resize(samples, max(1, round(seconds * SAMPLE_RATE)))


def median_seconds(recogniser, samples: np.ndarray) -> float:
    """Return the median wall time of a recognition in seconds, without a first warm-up."""
    spent = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        recogniser.transcribe(samples)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent[1:])
