"""`mlma translate`: simultaneous translation, from corpora to scores."""

from __future__ import annotations

import argparse

from espnet_mlma.cli.parser import Parser, describe
from espnet_mlma.cli.recipe import add_programs
from espnet_mlma.sst import commands as programs


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "arecord -q -f S16_LE -r 16000 -c 1 | mlma translate stream --model exp/stage2 --live\n"
        "  translates what the microphone records",
    )
    add_programs(parser, "command", {name: what for name, (_, what) in programs.COMMANDS.items()})


def run(arguments: argparse.Namespace) -> None:
    """Run a command of the translator."""
    programs.main([arguments.program, *arguments.options])
