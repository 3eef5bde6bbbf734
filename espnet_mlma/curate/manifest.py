"""Make a split manifest: hashes of the clips, speakers and sentences of a corpus on disk.

mlma data manifest commonvoice /corpora/commonvoice --lang it,nl --output cv.manifest.gz
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser, check_outputs, first_line
from espnet_mlma.data import split_manifest
from espnet_mlma.data.mixtures import CORPORA, reader_of
from espnet_mlma.data.split_manifest import Manifest, split_of
from espnet_mlma.data.utterance import Drop
from espnet_mlma.errors import MlmaError

SPLITS = "train,dev,test"


def main(argv: Sequence[str] | None = None) -> None:
    """Make a manifest from the command line."""
    args = _arguments(argv)
    check_outputs(args, "output")
    if args.output.is_file() and args.root.resolve() in args.output.resolve().parents:
        raise MlmaError(f"{args.output}: a file of the corpus; name another place")
    manifest = manifest_of(args.corpus, args.root, args.lang, args.splits, args.release)
    split_manifest.write(args.output, manifest)
    print(f"{args.output}: {len(manifest.splits)} splits, {args.output.stat().st_size} bytes")


def manifest_of(corpus: str, root: Path, langs: str, splits: str, release: str = "") -> Manifest:
    """Hash splits of a corpus on disk; print their counts and what is dropped to stderr.

    Args:
        corpus: key of `CORPORA`.
        root: its folder.
        langs, splits: names, separated by commas.
        release: empty: from the folder of Common Voice.

    Raises:
        MlmaError: the corpus is missing or damaged, or a name is empty or repeated.
    """
    made = []
    for lang in _names(langs, "--lang"):
        for split in _names(splits, "--splits"):
            drops: list[Drop] = []
            read = reader_of(corpus).prepare(root, lang, split)
            made.append(split_of(read, lang, split, release, drops))
            reasons = Counter(drop.reason for drop in drops).most_common()
            dropped = ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"
            print(
                f"{corpus} {made[-1].release or '(release unknown)'} {lang} {split}: "
                f"{len(made[-1].clips)} clips, dropped: {dropped}",
                file=sys.stderr,
            )
    return Manifest(corpus, tuple(made))


def _names(text: str, option: str) -> list[str]:
    names = text.split(",")
    if not all(names) or len(set(names)) < len(names):
        raise MlmaError(f"{option} {text}: an empty or repeated name; separate names by commas")
    return names


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="mlma data manifest", description=first_line(__doc__))
    parser.add_argument("corpus", choices=tuple(CORPORA), help="the corpus")
    parser.add_argument("root", type=Path, help="its folder")
    parser.add_argument("--lang", required=True, help="languages, separated by commas")
    parser.add_argument(
        "--splits", default=SPLITS, help=f"splits, separated by commas (default: {SPLITS})"
    )
    parser.add_argument(
        "--release", default="", help="(default: from the name of Common Voice's folder)"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write; compressed if it ends in .gz"
    )
    return parser.parse_args(argv)
