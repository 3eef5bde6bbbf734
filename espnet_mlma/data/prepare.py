"""Stage 1: make the data folders of a mixture of corpora.

    mlma recipe prepare --mixture real --db_root /corpora --output data --nj 4
    mlma recipe prepare --mixture real --list test

Dev and test sets are written first, so that training can leave out their utterances and speakers.
`excluded.md` in the training set's folder counts what was left out, and what dev and test share
with training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.claims import claim
from espnet_mlma.data import exclusions
from espnet_mlma.data.checks import HeldOut
from espnet_mlma.data.coverage import MISSING, Coverage
from espnet_mlma.data.mixtures import CorpusSplit, Mixture, find_roots, load, reader_of
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.writer import SetReport, write_set
from espnet_mlma.errors import MlmaError
from espnet_mlma.numbers import share


def main(argv: Sequence[str] | None = None) -> None:
    """Run stage 1 from the command line."""
    args = _arguments(argv)
    found = find_roots(args.db_root, args.root)
    mixture = load(args.mixtures, args.mixture, found)
    if args.list:
        names = {"train": [mixture.train_set], "valid": [mixture.valid_set]}
        print(*names.get(args.list, mixture.test_sets))
        return
    roots = _needed(found, mixture.corpora)
    for name in (mixture.train_set, mixture.valid_set, *mixture.test_sets):
        refuse_to_replace(args.output / name, (roots[corpus] for corpus in mixture.corpora))
    for corpus in mixture.corpora:
        generate = getattr(reader_of(corpus), "generate", None)
        if generate is not None:  # a synthetic corpus
            generate(roots[corpus], nj=args.nj)
    if args.missing is not None:
        mixture = replace(mixture, missing=args.missing)
    make_sets(mixture, roots, args.output, args.nj)


def make_sets(mixture: Mixture, roots: Mapping[str, Path], out: Path, nj: int) -> None:
    """Write the validation, test and training sets of a mixture, and print what they hold.

    Args:
        mixture: which corpora, languages and splits.
        roots: the folder of each corpus.
        out: parent of the data folders.
        nj: threads.

    Raises:
        MlmaError: a corpus is missing or damaged, more audio is missing than the mixture permits, a
            set cannot be written, or another process makes the mixture.
    """
    for split in mixture.train + mixture.valid + mixture.test:
        # A missing corpus is an error before anything is written.
        if next(split.utterances(roots), None) is None:
            raise MlmaError(
                f"{split.corpus}: no utterances of {split.lang} {split.split} in "
                f"{roots[split.corpus].absolute()}; download it again"
            )
    with claim(out / mixture.train_set, "makes it"):
        _make_sets(mixture, roots, out, nj)


def _make_sets(mixture: Mixture, roots: Mapping[str, Path], out: Path, nj: int) -> None:
    held_out = HeldOut()
    permitted = MISSING if mixture.missing is None else mixture.missing

    def read(name: str, splits: Iterable[CorpusSplit]) -> Iterator[Utterance | Drop]:
        return Coverage(name, permitted).through(_read(splits, roots))

    valid_set = mixture.valid_set
    valid = _held(read(valid_set, mixture.valid), held_out, valid_set)
    others = [write_set(out / valid_set, valid, nj=nj)]
    print(others[0], flush=True)
    for name, splits in mixture.test_sets.items():
        test = _held(read(name, splits), held_out, name)
        others.append(write_set(out / name, test, nj=nj, scored=True))
        print(others[-1], flush=True)
    utterances = read(mixture.train_set, mixture.train)
    train = write_set(out / mixture.train_set, utterances, nj=nj, held_out=held_out)
    print(train, flush=True)
    # Error rates of speakers seen in training say less about unseen speakers.
    for line in filter(None, (report.speaker_overlap(train) for report in others)):
        print(f"note: {line}", flush=True)
    report = train.folder / exclusions.NAME
    counts = exclusions.counts_table(train.drops)
    shared = _shared_table(others, train, held_out.shared_sentences())
    files.write(
        report,
        f"# Excluded from {train.folder.name}\n\n{train.kept} utterances were kept. Excluded:\n\n"
        f"{counts}\n\n## What training shares with dev and test\n\n{shared}\n",
    )
    if train.drops:
        print(f"excluded from {train.folder.name}, also in {report}:\n{counts}", flush=True)


def _shared_table(
    others: Sequence[SetReport], train: SetReport, sentences: Mapping[str, int]
) -> str:
    """Format what dev and test sets share with training and is not excluded."""
    rows = []
    for other in others:
        speakers, theirs = other.shared_speakers(train)
        name = other.folder.name
        rows.append([name, other.kept, len(other.speakers), speakers, theirs, sentences[name]])
    header = ["set", "utterances", "speakers", "speakers also in training", "their utterances"]
    return exclusions.table([*header, "utterances with a sentence of training"], rows)


def _held(
    utterances: Iterable[Utterance | Drop], held_out: HeldOut, name: str
) -> Iterator[Utterance | Drop]:
    """Yield utterances of a set, and add each to those held out from training."""
    for utterance in utterances:
        held_out.add(utterance, name)
        yield utterance


def _read(splits: Iterable[CorpusSplit], roots: Mapping[str, Path]) -> Iterator[Utterance | Drop]:
    for split in splits:
        for found in split.utterances(roots):
            is_drop = isinstance(found, Drop)
            yield replace(found, corpus=split.tag, lang=split.lang) if is_drop else found


def _needed(roots: dict[str, Path], corpora: list[str]) -> dict[str, Path]:
    """Return the folders; refuse if one that a mixture needs is not known."""
    missing = [corpus for corpus in corpora if corpus not in roots]
    if missing:
        raise MlmaError(
            f"no folder for {', '.join(missing)}; give --db_root, the parent of all corpora, "
            f"or --root {missing[0]}=DIR"
        )
    return roots


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="mlma recipe prepare", description=first_line(__doc__))
    parser.add_argument("--mixture", required=True, help="name in the mixtures file")
    parser.add_argument(
        "--mixtures", type=Path, default=Path("conf/mixtures.yaml"), help="the mixtures file"
    )
    parser.add_argument("--list", choices=("train", "valid", "test"), help="only print set names")
    parser.add_argument("--db_root", type=Path, help="parent folder of the corpora")
    parser.add_argument(
        "--root", action="append", default=[], metavar="CORPUS=DIR", help="folder of one corpus"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("data"), help="parent of the data folders"
    )
    parser.add_argument("--nj", type=int, default=4, help="threads")
    parser.add_argument(
        "--missing",
        type=share,
        metavar="SHARE",
        help="share of a source's labels whose audio may be missing, 0 to 1 "
        f"(default: of the mixture, else {MISSING:g})",
    )
    return parser.parse_args(argv)
