"""Make the data folders of a mixture, or name them.

python -m espnet_mlma.data.corpora --mixture real --db_root /corpora --out data --nj 4
python -m espnet_mlma.data.corpora --mixture real --list test
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser, refuse_to_replace
from espnet_mlma.claims import claim
from espnet_mlma.data.limits import HeldOut
from espnet_mlma.data.mixtures import CORPORA, Mixture, Source, load
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError, run_cli


def main() -> None:
    """Entry point; see the module's head."""
    args = _arguments()
    mixture = load(args.mixtures, args.mixture)
    if args.list:
        names = {"train": [mixture.train_set], "valid": [mixture.valid_set]}
        print(*names.get(args.list, mixture.test_sets))
        return
    roots = _roots(args.db_root, args.root, mixture.corpora)
    for name in (mixture.train_set, mixture.valid_set, *mixture.test_sets):
        refuse_to_replace(args.out / name, (roots[corpus] for corpus in mixture.corpora))
    for corpus in mixture.corpora:
        generate = getattr(import_module(f"espnet_mlma.data.corpora.{corpus}"), "generate", None)
        if generate is not None:  # a corpus that is made here
            generate(roots[corpus], nj=args.nj)
    make_sets(mixture, roots, args.out, args.nj)


def make_sets(mixture: Mixture, roots: Mapping[str, Path], out: Path, nj: int) -> None:
    """Write the validation, test and training sets of a mixture, and print what is in them.

    Args:
        mixture: which corpora, languages and splits.
        roots: the folder of each corpus.
        out: where the data folders go.
        nj: threads.

    Raises:
        MlmaError: a corpus is missing or damaged, a set cannot be written, or another process makes
            the mixture.
    """
    for source in mixture.train + mixture.valid + mixture.test:
        # A missing corpus shows before anything is written.
        if next(source.utterances(roots), None) is None:
            raise MlmaError(
                f"{source.corpus}: no utterances of {source.lang} {source.split} in "
                f"{roots[source.corpus].absolute()}; download it again"
            )
    with claim(out / mixture.train_set, "makes it"):
        _make_sets(mixture, roots, out, nj)


def _make_sets(mixture: Mixture, roots: Mapping[str, Path], out: Path, nj: int) -> None:
    held_out = HeldOut()
    valid = _held(_read(mixture.valid, roots), held_out)
    others = [write_set(out / mixture.valid_set, valid, nj=nj)]
    print(others[0], flush=True)
    for name, sources in mixture.test_sets.items():
        test = _held(_read(sources, roots), held_out)
        others.append(write_set(out / name, test, nj=nj, scored=True))
        print(others[-1], flush=True)
    train = write_set(
        out / mixture.train_set, _read(mixture.train, roots), nj=nj, held_out=held_out
    )
    print(train, flush=True)
    # A model knows these voices: its errors there say less about those of others.
    for line in filter(None, (report.heard_in(train) for report in others)):
        print(f"note: {line}", flush=True)


def _held(utterances: Iterable[Utterance | Drop], held_out: HeldOut) -> Iterator[Utterance | Drop]:
    """Pass utterances on, and note each as one that training may not hear."""
    for utterance in utterances:
        held_out.add(utterance)
        yield utterance


def _read(sources: Iterable[Source], roots: Mapping[str, Path]) -> Iterator[Utterance | Drop]:
    for source in sources:
        yield from source.utterances(roots)


def _roots(db_root: Path | None, named: list[str], corpora: list[str]) -> dict[str, Path]:
    """The folder of each corpus that a mixture needs."""
    roots = {} if db_root is None else {name: db_root / of for name, (_, of) in CORPORA.items()}
    for assignment in named:
        corpus, _, path = assignment.partition("=")
        if corpus not in CORPORA or not path:
            raise MlmaError(f"--root {assignment}: not CORPUS=DIR with one of {' '.join(CORPORA)}")
        roots[corpus] = Path(path)
    missing = [corpus for corpus in corpora if corpus not in roots]
    if missing:
        raise MlmaError(
            f"no folder is given for {', '.join(missing)}; give --db_root, where the corpora lie, "
            f"or --root {missing[0]}=DIR"
        )
    return roots


def _arguments() -> argparse.Namespace:
    parser = ArgumentParser(prog="python -m espnet_mlma.data.corpora", description=__doc__)
    parser.add_argument("--mixture", required=True, help="name in the mixtures file")
    parser.add_argument("--mixtures", type=Path, default=Path("conf/mixtures.yaml"))
    parser.add_argument("--list", choices=("train", "valid", "test"), help="print set names only")
    parser.add_argument("--db_root", type=Path, help="folder that the corpora lie in")
    parser.add_argument(
        "--root", action="append", default=[], metavar="CORPUS=DIR", help="a corpus elsewhere"
    )
    parser.add_argument("--out", type=Path, default=Path("data"), help="where the folders go")
    parser.add_argument("--nj", type=int, default=4, help="threads")
    return parser.parse_args()


if __name__ == "__main__":
    run_cli(main)
