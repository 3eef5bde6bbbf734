"""The command `mlma`: a module for each of its commands, with arguments and printing only."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Collection, Sequence
from importlib import import_module

from espnet_mlma.cli.parser import Parser, UsageError
from espnet_mlma.errors import MlmaWarning, run_cli
from espnet_mlma.memory import keep_freed_memory
from espnet_mlma.version import __version__

_SPIN_COUNT = "1000"  # libgomp's own choice where there are more threads than processors
# Name of the command and of its module -> summary. Only the module of the chosen one is imported.
COMMANDS = {
    "transcribe": "recognise sound files, folders of them, or the standard input",
    "align": "find the time of each word of a known text",
    "stream": "recognise speech live, from the standard input or the microphone",
    "translate": "translate speech while it is spoken: make data, train, stream, score",
    "info": "describe a model: layers, parameters, vocabulary, languages, training set",
    "bench": "measure loading and recognition on this machine",
    "compare": "put decoded systems and published figures side by side, with tests of significance",
    "demo": "open a local web page that transcribes uploads and recordings",
    "report": "write a page with an experiment's errors: tables, worst utterances, confusions, "
    "training",
    "data": "get, describe, compare, label and add corpora",
    "recipe": "make a recipe folder, or run one stage of a recipe",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        arguments: the command line without `mlma`; None: the process's.

    Raises:
        SystemExit: 1 on an error, 2 on wrong usage, 130 on Ctrl-C, 141 on a broken pipe.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    run_cli(lambda: run_command(build_parser(words[:1]).parse_args(words)))


def build_parser(complete: Collection[str] = COMMANDS) -> Parser:
    """Build the parser of all commands.

    Args:
        complete: the commands that get their options, `run` and `parser`; their modules are
            imported.
    """
    parser = Parser(
        prog="mlma",
        description="Recognise and translate speech with ConMamba and other CTC models of ESPnet.",
        epilog="`mlma COMMAND --help` shows an example of a command, its options and exit codes.",
    )
    parser.add_argument("--version", action="version", version=f"mlma {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in complete:
            import_module(f"{__name__}.{name}").add_arguments(command)
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
        # Read when PyTorch loads OpenMP. Threads that wait in a loop take the processor from those
        # that they wait for: on a busy machine recognition took four times as much CPU time.
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
        silence_imports()
    try:
        arguments.run(arguments)
    except UsageError as error:
        arguments.parser.error(str(error))


def silence_imports() -> None:
    """Hide logs and warnings of ESPnet and its imports, on which a user cannot act."""
    logging.disable(logging.WARNING)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MlmaWarning)
