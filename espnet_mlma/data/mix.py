"""Show how many hours of each language and corpus a balanced epoch draws.

The sampler of `data/balance.py` draws a language with P ~ hours^a, one of its corpora with
P ~ hours^b, and the corpus's clips in random order. It draws clips, not seconds, so a corpus of
long clips gets more hours than its probability. The table shows the hours of one actual draw of as
many clips as the set has; an epoch of fewer has the same shares.

    mlma recipe mix --dump dump/raw/train_real
    mlma recipe mix --dump dump/raw/train_real --language_exponent 0.3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_mlma.arguments import ArgumentParser, first_line
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.balance import BalancedDraw, Options
from espnet_mlma.data.clips import MADE_BY, read_clips

_ONE_BATCH = 2**62  # samples; more than any set has


@dataclass(frozen=True)
class Share:
    """Hours of one corpus of one language: in the set, and in one epoch drawn from it."""

    lang: str
    corpus: str
    hours: float
    drawn: float


def shares(dump: Path, options: Options, epoch: int = 1) -> list[Share]:
    """Sum the hours of a set and of one epoch drawn from it, by language and corpus.

    Args:
        dump: folder of the training set, with `utt2num_samples`, `utt2dataset`, `utt2category`.
        options: how to draw.
        epoch: number of the epoch.

    Raises:
        MlmaError: a table is missing or damaged, or they have different ids.
    """
    clips = read_clips(dump / "utt2num_samples", dump, MADE_BY)
    drawn = BalancedDraw(clips, options).epoch(epoch).order
    per_hour = SAMPLE_RATE * 3600
    hours = np.add.reduceat(clips.lengths, clips.starts[:-1]) / per_hour
    parts = np.bincount(clips.cell_of(drawn), clips.lengths[drawn], len(hours)) / per_hour
    return [
        Share(lang, corpus, float(total), float(part))
        for (lang, corpus), total, part in zip(clips.cells, hours, parts, strict=True)
    ]


def table(rows: list[Share]) -> str:
    """Format the shares as text: one line per language, and one for each of its corpora."""
    all_hours, all_drawn = sum(row.hours for row in rows), sum(row.drawn for row in rows)

    def line(name: str, part: list[Share]) -> str:
        hours, drawn = sum(row.hours for row in part), sum(row.drawn for row in part)
        shares = f"{100 * hours / all_hours:7.1f} {100 * drawn / all_drawn:7.1f}"
        return f"{name:10} {hours:10.2f} {drawn:10.2f} {shares}"

    lines = [f"{'':10} {'hours':>10} {'drawn':>10} {'%':>7} {'drawn %':>7}"]
    for lang in dict.fromkeys(row.lang for row in rows):
        part = [row for row in rows if row.lang == lang]
        lines.append(line(lang, part))
        lines += [line(f"  {row.corpus}", [row]) for row in part]
    return "\n".join([*lines, line("all", rows)])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program from the command line."""
    parser = ArgumentParser(prog="mlma recipe mix", description=first_line(__doc__))
    parser.add_argument("--dump", type=Path, required=True, help="folder of the training set")
    parser.add_argument(
        "--language_exponent", type=float, default=0.5, help="P(language) ~ hours^this"
    )
    parser.add_argument("--corpus_exponent", type=float, default=0.5, help="P(corpus) ~ hours^this")
    parser.add_argument("--epoch", type=int, default=1, help="number of the epoch")
    args = parser.parse_args(argv)
    options = Options(
        batch_bins=_ONE_BATCH,
        language_exponent=args.language_exponent,
        corpus_exponent=args.corpus_exponent,
    )
    print(table(shares(args.dump, options, args.epoch)))
