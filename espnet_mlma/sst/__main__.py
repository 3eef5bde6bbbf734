"""python -m espnet_mlma.sst COMMAND ...: simultaneous translation from corpus to scores."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from importlib import import_module

from espnet_mlma.arguments import ArgumentParser, check_outputs
from espnet_mlma.errors import run_cli

# Name -> module with `add_arguments(parser)` and `run(args)`, and what it does.
COMMANDS = {
    "recordings": (
        "espnet_mlma.sst.data.recordings",
        "put a corpus's utterances back into recordings",
    ),
    "translate": ("espnet_mlma.sst.data.translate", "translate the sentences"),
    "words": ("espnet_mlma.sst.data.words", "find when each word was said"),
    "align": (
        "espnet_mlma.sst.data.align",
        "find which word each word of a translation stands for",
    ),
    "build": ("espnet_mlma.sst.data.segments", "cut recordings into segments with their turns"),
    "train": ("espnet_mlma.sst.train.stages", "train encoder and adapter, or LoRA"),
    "talks": ("espnet_mlma.sst.data.talks", "write talks to test on, with their references"),
    "stream": ("espnet_mlma.sst.stream.files", "translate talks as they are heard"),
    "score": ("espnet_mlma.sst.score.table", "BLEU and StreamLAAL of translated talks"),
}
# The option that names what a command writes, where it is not --out.
_OUTPUTS = {"stream": "log", "score": "output"}


def main() -> None:
    """Entry point; only the module of the command is imported."""
    prog = "python -m espnet_mlma.sst"
    names = argparse.ArgumentParser(
        prog=prog,
        description="commands:\n"
        + "".join(f"  {n:12}{what}\n" for n, (_, what) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    command = names.parse_args(sys.argv[1:2]).command
    _quieten()
    module = import_module(COMMANDS[command][0])
    parser = ArgumentParser(
        prog=f"{prog} {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    args = parser.parse_args(sys.argv[2:])
    check_outputs(args, _OUTPUTS.get(command, "out"), inputs=_named(args))
    module.run(args)


def _named(args: argparse.Namespace) -> list[str]:
    """Models that are named by a path or a hub id."""
    names = (getattr(args, option, None) for option in ("encoder", "local", "model"))
    return [name for name in names if isinstance(name, str)]


def _quieten() -> None:
    """Nothing of transformers' that no user can act on; its bars only on a terminal."""
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # peft asks
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


if __name__ == "__main__":
    run_cli(main)
