"""`mlma compare`: put decoded systems and published figures side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.cli.files import print_or_write
from espnet_mlma.cli.parser import (
    Parser,
    UsageError,
    add_output,
    add_sets,
    comma_list,
    describe,
    format_of,
)

if TYPE_CHECKING:
    from espnet_mlma.evaluation.compare.comparison import Comparison

FORMATS = {"md": ".md", "json": ".json", "html": ".html"}
NORMALISERS = {"ours": ("ours",), "whisper": ("whisper",), "both": ("ours", "whisper")}


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma compare small=exp/asr_small/decode_a large=exp/asr_large/decode_a "
        "--published owsm-ctc,mlma --format html --output comparison.html\n"
        "  writes tables and plots of two models, with p-values, and figures of OWSM-CTC and MLMA",
    )
    parser.add_argument(
        "systems",
        nargs="*",
        type=named_folder,
        metavar="NAME=DECODE_FOLDER",
        help="name and folder of a decoding of stage 12 (default: published figures only); the "
        "NAME of a published system, such as owsm-ctc-v3.1, adds that system's caveats",
    )
    parser.add_argument(
        "--published",
        default="all",
        metavar="LIST|all|none",
        help="published systems to quote: names or prefixes such as owsm, separated by commas "
        "(default: all, for the decoded languages and corpora)",
    )
    parser.add_argument(
        "--normaliser",
        choices=tuple(NORMALISERS),
        default="ours",
        help="normaliser of references and hypotheses; whisper needs espnet-mlma[compare] "
        "(default: ours)",
    )
    parser.add_argument(
        "--overlap",
        type=Path,
        metavar="FILE",
        help="JSON of mlma data overlap, with SYSTEM=OTHER for each system of another release; "
        "its counts are caveats of the system's figures",
    )
    parser.add_argument("--format", choices=tuple(FORMATS), help="(default: by suffix, else md)")
    add_output(parser, "file to write (default: print)")
    parser.add_argument(
        "--dump",
        type=Path,
        metavar="FOLDER",
        help="references, dump/raw (default: of the recipe that contains the decoding)",
    )
    add_sets(parser)


def named_folder(text: str) -> tuple[str, Path]:
    """Split NAME=FOLDER; both are needed."""
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DECODE_FOLDER")
    if not name.isprintable():  # a line break, or bytes that the locale cannot decode
        raise argparse.ArgumentTypeError(f"{name!r} cannot be written in a table; give another")
    return name, Path(folder)


def run(arguments: argparse.Namespace) -> None:
    """Compare systems; print or write the result."""
    names = [name for name, _ in arguments.systems]
    if len(set(names)) < len(names):
        raise UsageError("two systems have one name; give each its own")
    form = format_of(arguments.output, arguments.format, FORMATS)
    quotes = comma_list(arguments.published)
    if not names and quotes in ((), ("none",)):
        raise UsageError("nothing to compare; name decoding folders or published systems")
    if not names and arguments.sets:
        raise UsageError("--sets is for decoding folders, and none is named")
    if not names and arguments.overlap:
        raise UsageError("--overlap is for decoding folders, and none is named")
    if arguments.output:
        refuse_inputs([arguments.output], inputs_of(arguments))

    from espnet_mlma.data import split_overlap
    from espnet_mlma.evaluation.compare.comparison import compare
    from espnet_mlma.evaluation.compare.published import load_published
    from espnet_mlma.evaluation.compare.releases import with_releases
    from espnet_mlma.evaluation.compare.systems import load_system

    published = load_published()
    overlaps = split_overlap.read(arguments.overlap) if arguments.overlap else ()
    chosen: dict[tuple[str, ...], tuple[str, ...]] = {
        ("all",): tuple(published.systems),
        ("none",): (),
    }
    figures = published.choose(chosen.get(quotes, quotes))
    by = NORMALISERS[arguments.normaliser]
    measured = [
        load_system(name, folder, arguments.dump, by, published, arguments.sets)
        for name, folder in arguments.systems
    ]
    known = with_releases(measured, published, figures, overlaps)
    published = known.published
    comparison = compare(known.systems, by, published, known.figures)
    if known.in_vain:
        print(f"no figure for the overlap with {', '.join(known.in_vain)}", file=sys.stderr)
    if quotes not in chosen:
        in_vain = [
            q
            for q in quotes
            if not {f.system for f in published.choose([q])}
            & {f.system for f in comparison.figures}
        ]
        if in_vain:
            print(f"no figure on what was decoded: {', '.join(in_vain)}", file=sys.stderr)
    contents = render(comparison, form)
    print_or_write(contents, arguments.output)


def inputs_of(arguments: argparse.Namespace) -> list[Path]:
    """Return files and folders that are read below those on the command line."""
    folders = [folder for _, folder in arguments.systems]
    below = [folder / "measured.json" for folder in folders]
    below += filter(None, [arguments.overlap])
    for folder in (*folders, *filter(None, [arguments.dump])):
        below += [folder, *folder.glob("*/")]
    return below


def render(comparison: Comparison, form: str) -> str:
    """Return the comparison as md, json or html."""
    if form == "json":
        from espnet_mlma.evaluation.compare.comparison import as_json

        return json.dumps(as_json(comparison), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    from espnet_mlma.evaluation.compare import markdown, page

    return {"md": markdown, "html": page}[form].render(comparison)
