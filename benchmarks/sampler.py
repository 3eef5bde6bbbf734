"""Batches for training on a large set: our sampler beside ESPnet's, on generated tables.

    python benchmarks/sampler.py --work FOLDER [--clips 8000000] [--espnet 1000000] [--json FILE]

The clips have ids, lengths, languages and corpora, and no sound: the shares and mean lengths of the
corpora are those of the mixture of 11,840 hours, roughly. Each row is a process of its own, with
the exponents and batch size of the configuration. Memory is the highest rise above what the
process had before, mapped files included.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
from common import ROOT, arguments, peak_bytes, report

from espnet_mlma import files
from espnet_mlma.data import tables
from espnet_mlma.data.balance import BalancedDraw, Options
from espnet_mlma.data.clips import open_clips

Measured = tuple[int, float, float, float | None]
RATE = 16000
CONFIG = ROOT / "conf" / "train_asr_conmamba.yaml"
# Corpus -> mean seconds, and parts of a thousand clips by language.
CORPORA = {
    "cv": (5.4, {"en": 240, "de": 126, "fr": 120, "es": 72, "it": 36, "nl": 6}),
    "ls": (12.3, {"en": 40}),
    "mls": (15.0, {"de": 95, "nl": 76, "fr": 53, "es": 45, "it": 11}),
    "vp": (9.5, {"en": 33, "de": 17, "fr": 13, "es": 9, "it": 5, "nl": 3}),
}


def generate(folder: Path, clips: int) -> None:
    """Write the tables of a training set, sorted by id."""
    generator = np.random.default_rng(0)
    lengths, langs, corpora = [], [], []
    for corpus, (mean, parts) in CORPORA.items():
        for lang, part in sorted(parts.items()):
            ids = [f"{corpus}_{lang}_{i // 20:06d}-{i:08d}" for i in range(clips * part // 1000)]
            seconds = np.clip(generator.normal(mean, 0.3 * mean, len(ids)), 1.0, 29.9)
            lengths.append(zip(ids, (seconds * RATE).astype(int).tolist(), strict=True))
            langs.append((id_, lang) for id_ in ids)
            corpora.append((id_, corpus) for id_ in ids)
    tables.write(folder / "speech_shape", chain.from_iterable(lengths))
    tables.write(folder / "utt2dataset", chain.from_iterable(langs))
    tables.write(folder / "utt2category", chain.from_iterable(corpora))


def options(iterations: int | None) -> Options:
    config = files.read_yaml(CONFIG, "take it from the repository")
    return Options(
        config["batch_bins"],
        config["dataset_upsampling_factor"],
        config["category_upsampling_factor"],
        iterations,
        max_batch_size=config["max_batch_size"],
        seed=config["seed"],
    )


def index(folder: Path) -> Measured:
    return measured(lambda: open_clips(folder / "speech_shape", folder), lambda clips: len(clips))


def epoch(folder: Path, iterations: int | None) -> Measured:
    """Draw an epoch from an index that exists."""
    clips = open_clips(folder / "speech_shape", folder)
    return measured(
        lambda: BalancedDraw(clips, options(iterations)).epoch(1), len_drawn, padding_of_ours
    )


def ids(folder: Path, iterations: int) -> Measured:
    """Take all ids of an epoch, as the trainer does step by step."""
    found = BalancedDraw(open_clips(folder / "speech_shape", folder), options(iterations)).epoch(1)
    return measured(lambda: list(found), lambda batches: sum(map(len, batches)))


def espnet(folder: Path) -> Measured:
    """Draw an epoch with ESPnet's sampler, which needs two more tables."""
    from espnet2.samplers.category_power_sampler import CategoryDatasetPowerSampler

    for name in ("dataset", "category"):
        of = tables.spk2utt(tables.read(folder / f"utt2{name}", "this"))
        tables.write(folder / f"{name}2utt", of)
    chosen = options(None)
    return measured(
        lambda: CategoryDatasetPowerSampler(
            batch_bins=chosen.batch_bins,
            shape_files=[str(folder / "speech_shape")],
            max_batch_size=chosen.max_batch_size,
            category_upsampling_factor=chosen.corpus_exponent,
            dataset_upsampling_factor=chosen.language_exponent,
            dataset_scaling_factor=1.0,
            category2utt_file=str(folder / "category2utt"),
            dataset2utt_file=str(folder / "dataset2utt"),
            utt2dataset_file=str(folder / "utt2dataset"),
        ),
        lambda sampler: sum(map(len, sampler)),
        lambda sampler: padding_of_ids(folder, sampler),
    )


def measured(run: Callable, count: Callable, padding: Callable | None = None) -> Measured:
    """Return clips, CPU seconds, rise of memory in GiB and the padding factor of one run."""
    found, seconds = None, 0.0

    def timed() -> None:
        nonlocal found, seconds
        started = time.process_time()
        found = run()
        seconds = time.process_time() - started

    rise = peak_bytes(timed) / 2**30
    return count(found), seconds, rise, padding(found) if padding else None


def len_drawn(found) -> int:
    return int((found.lasts - found.firsts).sum())


def padding_of_ours(found) -> float:
    lengths = found.clips.lengths
    padded = real = 0
    for number in range(len(found)):
        batch = lengths[found.indices(number)]
        padded += int(batch.max()) * len(batch)
        real += int(batch.sum())
    return padded / real


def padding_of_ids(folder: Path, batches) -> float:
    path = folder / "speech_shape"
    samples = tables.numbers(path, tables.read(path, "this"), int, "this")
    padded = sum(max(samples[id_] for id_ in batch) * len(batch) for batch in batches)
    return padded / sum(samples[id_] for batch in batches for id_ in batch)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--clips", type=int, default=8_000_000, help="of our sampler's set")
    parser.add_argument("--espnet", type=int, default=1_000_000, help="of the set for both")
    args = parser.parse_args()
    iterations = files.read_yaml(CONFIG, "restore it")["num_iters_per_epoch"]
    rows = []

    def row(name: str, run: Callable, *arguments) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool:
            clips, seconds, peak, padding = pool.submit(run, *arguments).result()
        shown = "" if padding is None else f"{padding:.3f}"
        rows.append([name, clips, f"{seconds:.1f}", f"{peak:.2f}", shown])

    for clips in dict.fromkeys((args.espnet, args.clips)):
        folder = args.work / str(clips)
        generate(folder, clips)
        if clips == args.espnet:
            row(f"ESPnet's, an epoch of {clips:,}", espnet, folder)
        row(f"ours, {clips:,}: write the index, once", index, folder)
        row(f"ours, {clips:,}: check and map it, each rank", index, folder)
        row(f"ours, {clips:,}: an epoch of as many", epoch, folder, None)
        row(f"ours, {clips:,}: an epoch of {iterations:,} batches", epoch, folder, iterations)
        row(f"ours, {clips:,}: the ids of these batches", ids, folder, iterations)
        shutil.rmtree(folder)
    header = ["what", "clips", "CPU seconds", "memory (GiB)", "padding factor"]
    report("Sampler", header, rows, args)


if __name__ == "__main__":
    main()
