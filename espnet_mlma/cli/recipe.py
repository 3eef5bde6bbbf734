"""`mlma recipe`: the stages of the recipe, and new recipe folders."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module

from espnet_mlma.cli.parser import Parser, describe

# Name -> (module with `main(argv)`, help). Only the module of the chosen stage is imported.
STAGES = {
    "new": ("espnet_mlma.cli.new", "make a folder with the recipe"),
    "prepare": ("espnet_mlma.data.prepare", "make data folders from corpora (stage 1)"),
    "speed-perturb": ("espnet_mlma.data.speed_perturb", "add copies at other speeds (stage 2)"),
    "format-audio": ("espnet_mlma.data.format_audio", "write audio as 16 kHz FLAC (stage 3)"),
    "filter": ("espnet_mlma.data.filter", "drop clips not to train on (stage 4)"),
    "mix": ("espnet_mlma.data.mix", "show the shares of languages and corpora in an epoch"),
    "tokens": ("espnet_mlma.data.tokens", "make a token list (stage 5)"),
    "pretrained": ("espnet_mlma.loading.pretrained", "start from a model (stages 5 and 11)"),
    "resume": ("espnet_mlma.espnet.resume", "repair the checkpoints of a killed training"),
    "trained-on": ("espnet_mlma.espnet.trained_on", "check that training data are unchanged"),
    "calibrate": ("espnet_mlma.evaluation.calibrate", "fit word confidences (stage 12)"),
    "decode": ("espnet_mlma.decode.stage", "decode data folders (stage 12)"),
    "score": ("espnet_mlma.evaluation.score.stage", "score decoded folders (stage 13)"),
    "measure": ("espnet_mlma.evaluation.compare.measure", "decode and time models to compare"),
    "upload": ("espnet_mlma.espnet.upload", "upload a packed model (stage 15)"),
    "conf": ("espnet_mlma.cli.conf", "print values of a YAML file"),
}


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma recipe new my_recipe\n  makes a folder whose run.sh runs all stages",
    )
    add_programs(parser, "stage", {name: what for name, (_, what) in STAGES.items()})


def add_programs(parser: argparse.ArgumentParser, kind: str, programs: Mapping[str, str]) -> None:
    """Add a choice of programs, which parse their own options.

    Args:
        parser: gets the arguments `program` and `options`.
        kind: what a program is called: stage or command.
        programs: name -> help.
    """
    lines = "".join(f"  {name:15}{what}\n" for name, what in programs.items())
    parser.description = f"{parser.description}\n\n{kind}s:\n{lines}"
    parser.add_argument(
        "program",
        choices=programs,
        metavar=kind.upper(),
        help="one of those above; `--help` behind it lists its options",
    )
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="...", help="its options")
    parser.set_defaults(is_program=True)


def run(arguments: argparse.Namespace) -> None:
    """Run a stage."""
    import_module(STAGES[arguments.program][0]).main(arguments.options)
