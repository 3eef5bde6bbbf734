"""The command `mlma`: a module for each of its commands, with arguments and printing only."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from espnet_mlma.cli import (
    align,
    bench,
    compare,
    demo,
    info,
    recipe,
    report,
    stream,
    transcribe,
    translate,
)
from espnet_mlma.cli.parser import Parser, UsageError
from espnet_mlma.errors import MlmaWarning, run_cli
from espnet_mlma.memory import keep_freed_memory
from espnet_mlma.version import __version__

COMMANDS = (
    transcribe,
    align,
    stream,
    translate,
    info,
    bench,
    compare,
    demo,
    report,
    recipe,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the command line without `mlma`; None: the process's.

    Raises:
        SystemExit: 1 on an error, 2 on wrong usage, 130 on Ctrl-C, 141 on a broken pipe.
    """
    run_cli(lambda: run_command(build_parser().parse_args(arguments)))


def build_parser() -> Parser:
    """Build the parser of all commands; each command sets `run` and `parser`."""
    parser = Parser(
        prog="mlma",
        description="Recognise and translate speech with ConMamba and other CTC models of ESPnet.",
        epilog="`mlma COMMAND --help` shows an example of a command, its options and exit codes.",
    )
    parser.add_argument("--version", action="version", version=f"mlma {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def run_command(arguments: argparse.Namespace) -> None:
    """Run a parsed command line.

    Args:
        arguments: with `run`, `parser`, and `is_program` if a program behind it logs by itself.

    Raises:
        MlmaError: the command failed.
        SystemExit: 2 on wrong usage.
    """
    if not getattr(arguments, "is_program", False):
        keep_freed_memory()
        _silence_imports()
    try:
        arguments.run(arguments)
    except UsageError as error:
        arguments.parser.error(str(error))


def _silence_imports() -> None:
    """Hide logs and warnings of ESPnet and its imports, on which a user cannot act."""
    logging.disable(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MlmaWarning)
