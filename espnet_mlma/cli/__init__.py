"""The `mlma` command: arguments and printing, a module for each of its commands."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from espnet_mlma.cli import align, bench, compare, demo, info, report, stream, transcribe
from espnet_mlma.cli.parser import Parser, UsageError
from espnet_mlma.errors import MlmaWarning, run_cli
from espnet_mlma.memory import keep_freed_memory
from espnet_mlma.version import __version__

COMMANDS = (transcribe, align, stream, info, bench, compare, demo, report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: what stands behind `mlma`; None: those of the process.

    Raises:
        SystemExit: 1 on an error, 2 on wrong usage, 130 on Ctrl-C, 141 on a
            broken pipe.
    """
    run_cli(lambda: run_command(build_parser().parse_args(arguments)))


def build_parser() -> Parser:
    """The parser of all the commands; each sets `run` and `parser`."""
    parser = Parser(
        prog="mlma",
        description="Speech recognition with ConMamba and other CTC models of ESPnet.",
        epilog="`mlma COMMAND --help` has an example of each command and its exit codes.",
    )
    parser.add_argument("--version", action="version", version=f"mlma {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def run_command(arguments: argparse.Namespace) -> None:
    """Do what a command line says, with a clean standard error.

    Args:
        arguments: with `run` and `parser`.

    Raises:
        MlmaError: the command failed.
        SystemExit: 2 on wrong usage.
    """
    keep_freed_memory()
    # What ESPnet and its imports log and warn of, a user of a command can do nothing about.
    logging.disable(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MlmaWarning)
    try:
        arguments.run(arguments)
    except UsageError as error:
        arguments.parser.error(str(error))
