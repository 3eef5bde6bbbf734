"""Translate a talk of an hour live: time of each turn, memory, and drift over the hour.

    python benchmarks/sst_stream.py --model egs2/mlma/sst1/exp/demo/stage2 \\
        --talk egs2/mlma/sst1/exp/demo/talks/joined-000.flac [--minutes 60] [--json FILE]

It also has the options of `mlma translate stream` for the translator.

The talk is repeated, each round padded to whole turns, so that all rounds have the same audio. Once
the cache holds only repeated rounds, a turn must have the same output as in any other round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from common import prepare, report, timed_arguments
from scipy.stats import theilslopes

from espnet_mlma.audio import read_audio
from espnet_mlma.sst.grid import CHUNK_SAMPLES, CHUNK_SECONDS
from espnet_mlma.sst.stream.agent import Translator
from espnet_mlma.sst.stream.files import add_translator_arguments, make_translator

MINUTES = (1, 5, 10, 30, 55)
PARTS = ("encoder", "LLM", "both")
# Turns whose median is one point of a slope: a hiccup of the machine is then no point.
TOGETHER = 8


@dataclass(frozen=True)
class Turn:
    """One turn: seconds of its parts, what it said, and memory after it in bytes."""

    encoder: float
    llm: float
    text: str
    cache: int
    resident: int

    @property
    def seconds(self) -> dict[str, float]:
        """By the names of `PARTS`."""
        return dict(zip(PARTS, (self.encoder, self.llm, self.encoder + self.llm), strict=True))


def listen(listener: Translator, talk: np.ndarray, turns: int) -> list[Turn]:
    """Translate so many turns of a talk without end.

    Args:
        listener: at the beginning of a talk.
        talk: (time,) at 16 kHz, whole turns; it is repeated.
        turns: how many.
    """
    blocks = np.split(talk, len(talk) // (listener.multiplier * CHUNK_SAMPLES))
    found = []
    for block in islice(cycle(blocks), turns):
        encoded = timed(lambda block=block: listener.stream.push(torch.from_numpy(block)))
        (vectors,) = encoded.result
        said = timed(lambda vectors=vectors: listener.conversation.translate(vectors))
        cache = listener.conversation.cache.nbytes
        found.append(Turn(encoded.seconds, said.seconds, said.result.text, cache, resident()))
    return found


@dataclass(frozen=True)
class Timed:
    """What a call returned, and the seconds it took."""

    result: object
    seconds: float


def timed(run: Callable[[], object]) -> Timed:
    """Run and time it."""
    started = time.perf_counter()
    result = run()
    return Timed(result, time.perf_counter() - started)


def resident() -> int:
    """Bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> None:
    parser = timed_arguments(__doc__.splitlines()[0])
    add_translator_arguments(parser)
    parser.add_argument("--talk", type=Path, required=True, help="a sound file, repeated")
    parser.add_argument("--minutes", type=int, default=60)
    args = parser.parse_args()
    prepare(args)
    listener = make_translator(args)
    seconds = args.multiplier * CHUNK_SECONDS
    talk = read_audio(args.talk)
    block = args.multiplier * CHUNK_SAMPLES
    talk = np.pad(talk, (0, -len(talk) % block))
    turns = listen(listener, talk, round(60 * args.minutes / seconds))
    decoding = listener.conversation.decoding
    title = f"{args.minutes} minutes, multiplier {args.multiplier}, beams {decoding.beams}, "
    title += f"{decoding.max_tokens} tokens remembered"
    by_minute(turns, seconds, title, args)
    slopes(turns, seconds, title, args)
    rounds(turns, len(talk) // block, seconds, title, args)


def by_minute(turns: list[Turn], seconds: float, title: str, args) -> None:
    """Times of the turns of some minutes, and memory at their ends."""
    rows = []
    for minute in MINUTES:
        of_minute = turns[round(60 * (minute - 1) / seconds) : round(60 * minute / seconds)]
        if minute > args.minutes or not of_minute:
            continue
        row: list[object] = [minute]
        for part in PARTS:
            times = sorted(turn.seconds[part] for turn in of_minute)
            row.append(f"{statistics.median(times):.3f}")
        row += [f"{times[round(0.95 * (len(times) - 1))]:.3f}", f"{times[-1]:.3f}"]
        last = of_minute[-1]
        row += [f"{last.cache / 2**20:.1f}", f"{last.resident / 2**20:.0f}"]
        rows.append(row)
    header = ["minute", "encoder (s a turn)", "LLM", "both", "95th percentile", "most"]
    header += ["LLM's memory (MiB)", "process (MiB)"]
    report(f"{title}: by the minute", header, rows, args)


def slopes(turns: list[Turn], seconds: float, title: str, args) -> None:
    """How much longer a turn takes after an hour, once the memory is full."""
    full = next(k for k, turn in enumerate(turns) if turn.cache == turns[-1].cache)
    rows = []
    for part in PARTS:
        starts = range(full, len(turns) - TOGETHER + 1, TOGETHER)
        times = [
            statistics.median(t.seconds[part] for t in turns[k : k + TOGETHER]) for k in starts
        ]
        hours = [k * seconds / 3600 for k in starts]
        slope, _, low, high = theilslopes([1e3 * t for t in times], hours)
        middle = 1e3 * statistics.median(times)
        rows.append([part, *(f"{x:+.1f}" for x in (slope, low, high)), f"{middle:.0f}"])
    header = ["part", "slope (ms an hour)", "95 %: from", "to", "median (ms a turn)"]
    report(f"{title}: Theil-Sen slope once the memory is full", header, rows, args)


def rounds(turns: list[Turn], of_round: int, seconds: float, title: str, args) -> None:
    """Whether later rounds of the talk say what an early one said."""
    early = round(60 * MINUTES[1] / seconds) // of_round
    count = len(turns) // of_round
    said = [[t.text for t in turns[k * of_round : (k + 1) * of_round]] for k in range(count)]
    same = [k for k in range(early, count) if said[k] == said[early]]
    turns_alike = sum(
        a == b for k in range(early, count) for a, b in zip(said[k], said[early], strict=True)
    )
    row = [count, of_round, early + 1, count - early, len(same)]
    row.append(f"{100 * turns_alike / max(1, of_round * (count - early)):.1f}")
    header = ["rounds", "turns of each", "compared with round", "rounds compared", "alike"]
    header.append("turns alike (%)")
    report(f"{title}: what later rounds said", header, [row], args)


if __name__ == "__main__":
    main()
