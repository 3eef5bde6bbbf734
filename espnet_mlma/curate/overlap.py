"""Count how many of my test clips, speakers and sentences are in another release's splits.

mlma data overlap mine.manifest.gz 12.manifest.gz
mlma data overlap /corpora/commonvoice owsm-ctc-v4=12.manifest.gz --lang it --format json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_mlma import files
from espnet_mlma.arguments import ArgumentParser, first_line, refuse_inputs
from espnet_mlma.curate.manifest import SPLITS, manifest_of
from espnet_mlma.data import split_manifest
from espnet_mlma.data.mixtures import CORPORA
from espnet_mlma.data.split_manifest import Manifest
from espnet_mlma.data.split_overlap import Overlap, as_json, overlaps
from espnet_mlma.errors import MlmaError


def main(argv: Sequence[str] | None = None) -> None:
    """Count overlaps from the command line."""
    args = _arguments(argv)
    others = [_named(text) for text in args.others]
    if len({name for name, _ in others}) < len(others):
        raise MlmaError("two of the others have one name; give each its own as NAME=FILE")
    if args.output:
        refuse_inputs([args.output], [args.mine, *(path for _, path in others)])
    mine = _manifest(args.mine, args)
    found = [one for name, path in others for one in overlaps(mine, _manifest(path, args), name)]
    text = as_json(found) if args.format == "json" else table(found)
    if args.output:
        files.write(args.output, text)
    else:
        print(text, end="")


def table(found: Sequence[Overlap]) -> str:
    """Return overlaps as a text table; per cents are of my test clips or test speakers."""
    head = ("language", "other", "release", "split", "test clips", "clips", "test speakers")
    rows: list[tuple[str, ...]] = [(*head, "speakers", "their clips", "clips with a sentence")]
    for one in found:
        rows.append(
            (
                *(one.lang, one.other, one.other_release or "unknown", one.role),
                str(one.test_clips),
                _share(one.clips, one.test_clips),
                str(one.test_speakers),
                _share(one.speakers, one.test_speakers),
                _share(one.clips_of_speakers, one.test_clips),
                _share(one.clips_of_sentences, one.test_clips),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.1f} %)"


def _named(text: str) -> tuple[str, Path]:
    """Split NAME=PATH; a path without a name is its own."""
    name, equals, path = text.partition("=")
    if not equals or "/" in name:
        name, path = text, text
    if not name.isprintable() or not name or not path:
        raise MlmaError(f"{ascii(text)}: not OTHER or NAME=OTHER; give a file or folder")
    return name, Path(path)


def _manifest(path: Path, args: argparse.Namespace) -> Manifest:
    if not path.is_dir():
        return split_manifest.read(path)
    if not args.lang:
        raise MlmaError(f"{path}: a corpus's folder; name its languages with --lang")
    return manifest_of(args.corpus, path, args.lang, args.splits)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="mlma data overlap", description=first_line(__doc__))
    parser.add_argument("mine", type=Path, help="manifest or corpus folder with my test set")
    parser.add_argument(
        "others",
        nargs="+",
        metavar="[NAME=]OTHER",
        help="manifest or corpus folder; NAME is a system of mlma compare that uses this release",
    )
    parser.add_argument(
        "--corpus", choices=tuple(CORPORA), default="commonvoice", help="of corpus folders"
    )
    parser.add_argument("--lang", help="languages of corpus folders, separated by commas")
    parser.add_argument("--splits", default=SPLITS, help="splits of corpus folders")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--output", type=Path, help="file to write (default: print)")
    return parser.parse_args(argv)
