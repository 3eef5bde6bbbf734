"""Compare long recordings with their utterances alone: errors, speed and memory.

    python benchmarks/long_audio.py --model EXPERIMENT --data dump/raw/test_x ... [--minutes 10]

Utterances are joined, language by language, with faint noise or nothing between them. Errors are
counted over a whole recording's text in both cases, so that the alignment is the same.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import editdistance
import numpy as np
import soundfile
from common import in_own_process, model_arguments, peak_of_process, prepare, report

import espnet_mlma
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data import tables as datadir
from espnet_mlma.decode.folder import decode_folder, read_samples

NOISE = 1e-3  # of the pauses, root mean square of full scale


@dataclass(frozen=True)
class Clip:
    """An utterance: samples (time,) at 16 kHz, reference, and the text recognised from it alone."""

    samples: np.ndarray
    text: str
    alone: str


def utterances(args, recogniser) -> list[Clip]:
    """Read the utterances of all sets, language by language."""
    by_language: dict[str, list[Clip]] = {}
    for folder in args.data:
        tables = {name: datadir.read(folder / name, "stage 4") for name in ("text", "utt2lang")}
        alone, _ = decode_folder(recogniser, folder, 60)
        for key, where in datadir.read(folder / "wav.scp", "stage 4").items():
            found = Clip(read_samples(where), tables["text"][key], alone[key].text)
            by_language.setdefault(tables["utt2lang"][key], []).append(found)
    return [found for language in sorted(by_language) for found in by_language[language]]


def recordings(spoken: list[Clip], minutes: float) -> Iterator[list[Clip]]:
    """Group utterances into recordings of about this length."""
    held, seconds = [], 0.0
    for utterance in spoken:
        held.append(utterance)
        seconds += len(utterance.samples) / SAMPLE_RATE
        if seconds >= 60 * minutes:
            yield held
            held, seconds = [], 0.0
    if held:
        yield held


def joined(spoken: list[Clip], gap: float, rng: np.random.Generator) -> np.ndarray:
    """Join utterances, with `gap` seconds of noise after each."""
    parts = []
    for utterance in spoken:
        pause = rng.normal(0, NOISE, round(gap * SAMPLE_RATE)).astype(np.float32)
        parts += [utterance.samples, pause]
    return np.concatenate(parts)


def count(spoken: list[Clip], text: str) -> np.ndarray:
    """Return errors and number of words, errors and number of characters."""
    reference = " ".join(utterance.text for utterance in spoken)
    found = [(reference.split(), text.split()), (list(reference), list(text))]
    return np.array([n for a, b in found for n in (editdistance.eval(a, b), len(a))])


def error_rates(args, recogniser, spoken: list[Clip]) -> None:
    rows, rng = [], np.random.default_rng(0)
    several = list(recordings(spoken, args.minutes))
    totals = {"alone": sum(count(one, " ".join(u.alone for u in one)) for one in several)}
    speeds = {"alone": "-"}
    for gap in args.gap:
        name = f"joined, {gap:g} s between"
        sounds = [joined(one, gap, rng) for one in several]
        started = time.perf_counter()
        texts = [recogniser.transcribe(sound).text for sound in sounds]
        speed = sum(map(len, sounds)) / SAMPLE_RATE / (time.perf_counter() - started)
        totals[name] = sum(count(one, text) for one, text in zip(several, texts, strict=True))
        speeds[name] = f"{speed:.0f}"
    for name, (words, all_words, characters, all_characters) in totals.items():
        rates = 100 * words / all_words, 100 * characters / all_characters
        rows.append([name, *(f"{rate:.2f}" for rate in rates), speeds[name]])
    title = f"{len(spoken)} utterances, {len(several)} recordings of {args.minutes:g} minutes"
    header = ["utterances", "WER (%)", "CER (%)", "x real time"]
    report(f"{title}, {args.name}", header, rows, args)


def hours(args, spoken: list[Clip]) -> None:
    """Report time and memory for files of ten minutes and an hour, each in its own process."""
    rows = []
    sound = joined(next(recordings(spoken, 10)), args.gap[-1], np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (10, 60):
            file = Path(folder) / f"{minutes}.wav"
            soundfile.write(file, np.resize(sound, 60 * minutes * SAMPLE_RATE), SAMPLE_RATE)
            found = in_own_process(__file__, args, "--model", args.model, "--time", file)
            rows.append(
                [
                    f"{minutes} min",
                    f"{found['seconds']:.1f}",
                    f"{60 * minutes / found['seconds']:.0f}",
                    f"{found['peak'] / 2**20:.0f}",
                ]
            )
    header = ["file", "seconds", "x real time", "peak of process (MiB)"]
    report(f"Long files, {args.name}", header, rows, args)


def main() -> None:
    parser = model_arguments(__doc__.splitlines()[0])
    parser.add_argument("--name", default="a model", help="the model's name in titles")
    parser.add_argument("--minutes", type=float, default=10, help="length of a recording")
    parser.add_argument("--gap", type=float, nargs="+", default=[0, 0.5, 1], help="pauses, seconds")
    parser.add_argument("--time", type=Path, help="time one file, print JSON")
    args = parser.parse_args()
    prepare(args)
    if not args.model or not (args.data or args.time):
        parser.error("needs --model, and sets in --data")
    recogniser = espnet_mlma.load(args.model, device="cpu")
    if args.time:
        started = time.perf_counter()
        recogniser.transcribe(args.time)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "peak": peak_of_process()}))
        return
    spoken = utterances(args, recogniser)
    error_rates(args, recogniser, spoken)
    hours(args, spoken)


if __name__ == "__main__":
    main()
