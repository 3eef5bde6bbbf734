"""Shared parts of the commands' parsers."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from espnet_mlma import streams
from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.errors import BROKEN_PIPE, MlmaError, one_line

DEFAULT_MODEL = (
    "experiment folder, packed zip, or id on the Hugging Face hub, which is downloaded "
    "(default: $MLMA_MODEL, else the model that `make demo` trained)"
)
EXIT_CODES = {
    0: "success",
    1: "an error; standard error has it in one line",
    2: "wrong usage",
    130: "ended by Ctrl-C",
    BROKEN_PIPE: "broken pipe, such as `| head -1`",
}


_EMPTY_OPTION = re.compile(r"--[\w-]+=")


class UsageError(MlmaError):
    """A wrong command line, found after parsing."""


def binary_stdin() -> BinaryIO:
    """Return the standard input as a binary stream.

    Raises:
        UsageError: the standard input is closed.
    """
    if not streams.has_stdin():
        raise UsageError("there is no standard input; name a file, or send one through a pipe")
    return sys.stdin.buffer


def check_stdout() -> None:
    """Check before any work that the standard output is open.

    Raises:
        UsageError: the standard output is closed.
    """
    if not streams.has_stdout():
        raise UsageError("there is no standard output; write to a file with -o, or open one")


def shown(path: str | Path) -> str:
    """Return a path as text; bytes that are not UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def check_output(output: Path | None) -> None:
    """Check before any work that --output is not a folder.

    Raises:
        UsageError: --output is a folder.
    """
    if output and os.path.isdir(output):
        raise UsageError(f"-o {output} is a folder; name a file")


def format_of(output: Path | None, given: str | None, suffixes: Mapping[str, str]) -> str:
    """Choose the output format by --format, or by the suffix of --output.

    Args:
        output: file to write; None: the standard output.
        given: value of --format.
        suffixes: format -> suffix; the first format is the default.

    Raises:
        UsageError: the standard output is closed, the file is a folder, or its suffix contradicts
            --format or is unknown.
    """
    if output is None:
        check_stdout()
    check_output(output)
    suffix = output.suffix.lower() if output else ""
    by_name = next((name for name, of in suffixes.items() if of.lower() == suffix), None)
    if given and by_name not in (None, given):
        raise UsageError(f"{output} and --format {given}: give one of both")
    if not given and not by_name and suffix:
        raise UsageError(f"{output} ends as none of {', '.join(suffixes.values())}; give --format")
    return given or by_name or next(iter(suffixes))


class _Once(argparse.Action):
    """Store a value; refuse a second one, which would silently replace the first."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "given twice; run the command once for each")
        setattr(namespace, self.dest, values)


class Parser(ArgumentParser):
    """An argument parser that prints errors in one line and refuses empty arguments."""

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else list(args)
        for before, argument in pairwise(["", *args]):
            if not argument or _EMPTY_OPTION.fullmatch(argument):
                option = argument.rstrip("=") or (before if before.startswith("-") else "")
                self.error(f"{option or 'an argument'} is empty; name something or leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        self.exit(2, f"error: {one_line(message)}; see {self.prog} --help\n")


def describe(
    parser: Parser,
    run: Callable[[argparse.Namespace], None],
    example: str,
    exit_codes: dict[int, str] | None = None,
) -> None:
    """Describe a command: its example, its exit codes, and the function that runs it.

    Args:
        parser: of the command.
        run: runs the command with the parsed arguments.
        example: a command line, and what it does.
        exit_codes: meanings that differ from `EXIT_CODES`.
    """
    codes = EXIT_CODES | (exit_codes or {})
    parser.epilog = f"example:\n  {example}\n\nexit codes:\n" + "\n".join(
        f"  {code:<4} {meaning}" for code, meaning in codes.items()
    )
    parser.set_defaults(run=run, parser=parser)


def text_of(argument: str) -> str:
    """Decode an argument from UTF-8, also in a locale that has another encoding."""
    if argument.isprintable():
        return argument
    try:
        return os.fsencode(argument).decode("utf-8-sig")
    except UnicodeError:
        raise argparse.ArgumentTypeError(f"{argument!r} is not UTF-8; convert it") from None


def text_list(argument: str) -> tuple[str, ...]:
    """Split a text at commas, decoded from UTF-8."""
    return comma_list(text_of(argument))


def comma_list(text: str) -> tuple[str, ...]:
    """Split a text at commas; drop empty parts."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def set_names(text: str) -> tuple[str, ...]:
    """Split names of test sets at commas.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    names = comma_list(text)
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no test set")
    return names


def add_output(
    parser: argparse.ArgumentParser, help: str, dest: str = "output", metavar: str = "FILE"
) -> None:
    """Add `-o` and `--output`, which may be given once."""
    parser.add_argument(
        "-o", "--output", dest=dest, type=Path, action=_Once, metavar=metavar, help=help
    )


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Add `--sets`, test sets of a decoding."""
    parser.add_argument(
        "--sets",
        type=set_names,
        default=(),
        metavar="LIST",
        help="test sets, such as test_cv_en,test_cv_it (default: all that are decoded)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model`."""
    parser.add_argument("--model", metavar="PATH|ZIP|HUB_ID", help=DEFAULT_MODEL)


def add_speech_guard(parser: argparse.ArgumentParser) -> None:
    """Add `--no-speech-guard`."""
    parser.add_argument(
        "--no-speech-guard",
        dest="speech_guard",
        action="store_false",
        help="keep words where the sound is silence, steady noise or hum",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add `--model`, `--device` and `--precision`."""
    add_model(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="of the large layers on a CPU; bfloat16 and int8 are faster (default: float32)",
    )
