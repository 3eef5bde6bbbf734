"""`mlma data`: get, describe, compare, label and add corpora."""

from __future__ import annotations

import argparse
from importlib import import_module

from espnet_mlma.cli.parser import Parser, describe
from espnet_mlma.cli.recipe import add_programs

# Name -> (module with `main(argv)`, help). Only the module of the chosen program is imported.
PROGRAMS: dict[str, tuple[str, str]] = {
    "add": ("espnet_mlma.curate.add", "add a corpus of your own, in any language"),
    "get": ("espnet_mlma.curate.get", "download and unpack Common Voice"),
    "manifest": ("espnet_mlma.curate.manifest", "hash the splits of a corpus, to publish"),
    "overlap": ("espnet_mlma.curate.overlap", "count test clips in another release's splits"),
    "label": ("espnet_mlma.curate.label", "label audio with a recogniser"),
}


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma data get commonvoice --lang it --release 27.0\n"
        "  downloads and unpacks a release of Common Voice",
    )
    add_programs(parser, "command", {name: what for name, (_, what) in PROGRAMS.items()})


def run(arguments: argparse.Namespace) -> None:
    """Run a program."""
    import_module(PROGRAMS[arguments.program][0]).main(arguments.options)
