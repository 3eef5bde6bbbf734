"""Run a command of simultaneous translation, from corpora to scores."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from espnet_mlma.arguments import ArgumentParser, check_outputs

# Name -> (module with `add_arguments(parser)` and `run(args)`, help text).
COMMANDS = {
    "recordings": (
        "espnet_mlma.sst.data.recordings",
        "join a corpus's utterances to recordings",
    ),
    "translate": ("espnet_mlma.sst.data.translate", "translate the sentences"),
    "words": ("espnet_mlma.sst.data.words", "find the time of each word"),
    "align": (
        "espnet_mlma.sst.data.align",
        "align the words of text and translation",
    ),
    "build": ("espnet_mlma.sst.data.segments", "cut recordings into training segments"),
    "train": ("espnet_mlma.sst.train.stages", "train encoder and adapter, or LoRA"),
    "talks": ("espnet_mlma.sst.data.talks", "write test talks with references"),
    "stream": ("espnet_mlma.sst.stream.files", "translate talks while they are spoken"),
    "score": ("espnet_mlma.sst.score.table", "compute BLEU and StreamLAAL of translated talks"),
}
# Output option of each command whose output is not --out.
_OUTPUTS = {"stream": "log", "score": "output"}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command and import only its module."""
    prog = "mlma translate"
    words = sys.argv[1:] if argv is None else list(argv)
    names = argparse.ArgumentParser(
        prog=prog,
        description="commands:\n"
        + "".join(f"  {n:12}{what}\n" for n, (_, what) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    command = names.parse_args(words[:1]).command
    _silence_transformers()
    module = import_module(COMMANDS[command][0])
    parser = ArgumentParser(
        prog=f"{prog} {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    args = parser.parse_args(words[1:])
    check_outputs(args, _OUTPUTS.get(command, "out"), inputs=_named(args))
    module.run(args)


def _named(args: argparse.Namespace) -> list[str]:
    """Return the models given by path or hub id."""
    names = (getattr(args, option, None) for option in ("encoder", "local", "model"))
    return [name for name in names if isinstance(name, str)]


def _silence_transformers() -> None:
    """Hide a warning no user can act on, and progress bars outside a terminal."""
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # peft asks
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
