"""`mlma report`: write a page with an experiment's errors."""

from __future__ import annotations

import argparse
from pathlib import Path

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.cli.parser import Parser, UsageError, add_output, add_sets, check_output, describe
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.files import write
from espnet_mlma.numbers import natural, not_negative

_MEGA = 1_000_000


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma report exp/asr_small --worst 20 --output errors.html\n"
        "  writes one file that browsers open without network",
    )
    parser.add_argument(
        "experiment", type=Path, metavar="EXP", help="experiment that stage 12 decoded, exp/asr_*"
    )
    parser.add_argument(
        "--decoding", metavar="NAME", help="decoding folder in EXP (default: the only one)"
    )
    parser.add_argument(
        "--dump",
        type=Path,
        metavar="DIR",
        help="references and audio, dump/raw (default: of the experiment's recipe)",
    )
    add_sets(parser)
    parser.add_argument(
        "--worst",
        type=natural,
        default=50,
        metavar="N",
        help="utterances to list with audio, languages in turn (default: 50)",
    )
    parser.add_argument(
        "--audio-mb",
        type=not_negative,
        default=8.0,
        metavar="MB",
        help="maximum of audio in the page, as MP3 in base64; 0: no audio (default: 8)",
    )
    add_output(parser, "file to write (default: EXP/DECODING/report.html)")


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print what it contains.

    Raises:
        UsageError: --output is a folder, or is missing although --sets is given.
    """
    check_output(arguments.output)
    if arguments.output and arguments.output.suffix.lower() not in ("", ".html", ".htm"):
        raise UsageError(f"-o {arguments.output}: the page is HTML; name it .html")
    if arguments.sets and not arguments.output:
        raise UsageError("--sets: name a file with -o, because report.html is the page of all sets")
    if arguments.output:
        refuse_inputs([arguments.output], inputs_of(arguments))
    import_espnet()

    from espnet_mlma.evaluation.report.data import load_decoding
    from espnet_mlma.evaluation.report.page import render
    from espnet_mlma.evaluation.report.training import read_epochs

    decoded = load_decoding(
        arguments.experiment, arguments.decoding, arguments.dump, arguments.sets
    )
    page = render(
        decoded,
        read_epochs(arguments.experiment),
        arguments.worst,
        round(_MEGA * arguments.audio_mb),
    )
    output = arguments.output or decoded.experiment / decoded.decoding / "report.html"
    write(output, page.html)
    size = len(page.html.encode()) / _MEGA
    print(f"wrote {output}, {size:.1f} MB: {page.listed} of the worst utterances")
    for reason, count in page.silent.items():
        print(f"  {count} without audio: {reason}")


def inputs_of(arguments: argparse.Namespace) -> list[Path]:
    """Return files and folders that are read below those on the command line."""
    experiment, dump = arguments.experiment, arguments.dump
    folders = [experiment, *experiment.glob("*/"), *experiment.glob("*/*/")]
    folders += [] if dump is None else [dump, *dump.glob("*/")]
    return folders
