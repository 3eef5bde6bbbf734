"""Write the files of ESPnet's balanced sampler, and show how much of each language it draws.

ESPnet's `catpow_balance_dataset` draws a "dataset" with P ~ hours^a, one of its "categories" with
P ~ hours^b, and one of its utterances uniformly. Here a dataset is a language, and a category is
one of its corpora. The sampler draws utterances, not seconds, so a corpus of long utterances gets
more hours than its probability. The table shows the hours of one actual draw.

Source: Pratap et al., "Scaling speech technology to 1,000+ languages", 2023.

    mlma recipe mix --dump dump/raw/train_real --prepare
    mlma recipe mix --dump dump/raw/train_real --language_exponent 0.5
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.arguments import ArgumentParser, first_line
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data import tables
from espnet_mlma.errors import MlmaError

_MADE_BY = "stages 3 and 4"
_ONE_BATCH = 2**62  # samples; more than any set has


@dataclass(frozen=True)
class Share:
    """Hours of one corpus of one language: in the set, and in one epoch drawn from it."""

    lang: str
    corpus: str
    hours: float
    drawn: float


def write_sampler_files(dump: Path) -> None:
    """Write `category2utt` and `dataset2utt` for the utterances of `wav.scp`.

    Args:
        dump: folder of the training set, with `wav.scp`, `utt2category` and `utt2dataset`.

    Raises:
        MlmaError: a file is missing, or lacks an utterance.
    """
    ids = tables.read_alike(dump, ["wav.scp"], _MADE_BY)["wav.scp"]
    for name in ("category", "dataset"):
        utterances: dict[str, list[str]] = defaultdict(list)
        for id_, kind in tables.read_for(dump / f"utt2{name}", ids, _MADE_BY).items():
            utterances[kind].append(id_)
        lines = (f"{kind} {' '.join(of)}\n" for kind, of in sorted(utterances.items()))
        files.write(dump / f"{name}2utt", "".join(lines))


def draw(
    dump: Path,
    language_exponent: float,
    corpus_exponent: float,
    scaling: float = 1.0,
    epoch: int = 1,
) -> list[str]:
    """Draw the utterances of one epoch with ESPnet's sampler.

    Args:
        dump: folder with `utt2num_samples` and the files of `write_sampler_files`.
        language_exponent: a of P(language) ~ hours^a; ESPnet's `dataset_upsampling_factor`.
        corpus_exponent: b of P(corpus) ~ hours^b; ESPnet's `category_upsampling_factor`.
        scaling: size of the draw relative to the set, at least 1; `dataset_scaling_factor`.
        epoch: seed of the draw.

    Returns:
        Utterance ids, possibly with repetitions.

    Raises:
        MlmaError: a file is missing, or the scaling is below 1.
    """
    from espnet2.samplers.category_power_sampler import CategoryDatasetPowerSampler

    if scaling < 1:
        raise MlmaError(f"--scaling {scaling}: ESPnet's sampler needs at least 1")
    lengths = _lengths(dump)
    for name in ("category2utt", "dataset2utt", "utt2dataset"):
        tables.read_for(dump / name, lengths if name == "utt2dataset" else (), _MADE_BY)
    sampler = CategoryDatasetPowerSampler(
        batch_bins=_ONE_BATCH,
        shape_files=[str(dump / "utt2num_samples")],
        category_upsampling_factor=corpus_exponent,
        dataset_upsampling_factor=language_exponent,
        dataset_scaling_factor=scaling,
        category2utt_file=str(dump / "category2utt"),
        dataset2utt_file=str(dump / "dataset2utt"),
        utt2dataset_file=str(dump / "utt2dataset"),
        epoch=epoch,
    )
    return list(chain.from_iterable(sampler))


def shares(dump: Path, drawn: Iterable[str]) -> list[Share]:
    """Sum the hours of a set and of a draw from it, by language and corpus.

    Args:
        dump: folder of the training set.
        drawn: utterance ids.
    """
    samples = _lengths(dump)
    langs = tables.read_for(dump / "utt2dataset", samples, _MADE_BY)
    corpora = tables.read_for(dump / "utt2category", samples, _MADE_BY)
    totals: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for column, ids in enumerate((samples, drawn)):
        for id_ in ids:
            totals[langs[id_], corpora[id_]][column] += samples[id_]
    per_hour = SAMPLE_RATE * 3600
    return [
        Share(lang, corpus, total / per_hour, part / per_hour)
        for (lang, corpus), (total, part) in sorted(totals.items())
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


def _lengths(dump: Path) -> dict[str, float]:
    """Read the number of samples of each utterance."""
    path = dump / "utt2num_samples"
    return tables.numbers(path, tables.read(path, _MADE_BY), int, _MADE_BY)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program from the command line."""
    parser = ArgumentParser(prog="mlma recipe mix", description=first_line(__doc__))
    parser.add_argument("--dump", type=Path, required=True, help="folder of the training set")
    parser.add_argument("--prepare", action="store_true", help="only write the sampler's files")
    parser.add_argument(
        "--language_exponent", type=float, default=0.5, help="P(language) ~ hours^this"
    )
    parser.add_argument("--corpus_exponent", type=float, default=0.5, help="P(corpus) ~ hours^this")
    parser.add_argument("--scaling", type=float, default=1.0, help="size of the draw")
    parser.add_argument("--epoch", type=int, default=1, help="seed of the draw")
    args = parser.parse_args(argv)
    write_sampler_files(args.dump)
    if args.prepare:
        return
    drawn = draw(args.dump, args.language_exponent, args.corpus_exponent, args.scaling, args.epoch)
    print(table(shares(args.dump, drawn)))
