"""What the commands' parsers have in common."""

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
    "an experiment folder, a packed zip, or a name on the Hugging Face hub, which is downloaded; "
    "without it $MLMA_MODEL, or the model that `make demo` trained"
)
EXIT_CODES = {
    0: "all went well",
    1: "an error; it is one line on the standard error",
    2: "wrong usage",
    130: "ended by Ctrl-C",
    BROKEN_PIPE: "nobody reads the output any more, as behind `| head -1`",
}


_EMPTY_OPTION = re.compile(r"--[\w-]+=")


class UsageError(MlmaError):
    """A command line that makes no sense, found after it was parsed."""


def binary_stdin() -> BinaryIO:
    """The standard input as bytes.

    Raises:
        UsageError: the program was started without one.
    """
    if not streams.has_stdin():
        raise UsageError("there is no standard input; name a file, or send one through a pipe")
    return sys.stdin.buffer


def check_stdout() -> None:
    """See, before any work, that there is a standard output to print to.

    Raises:
        UsageError: the program was started without one.
    """
    if not streams.has_stdout():
        raise UsageError("there is no standard output; write to a file with -o, or open one")


def shown(path: str | Path) -> str:
    """A path as text; the name of a file need not be text."""
    return os.fsencode(path).decode("utf-8", "replace")


def check_output(output: Path | None) -> None:
    """See, before any work, that what -o names can be a file.

    Raises:
        UsageError: it is a folder.
    """
    if output and os.path.isdir(output):
        raise UsageError(f"-o {output} is a folder; name a file")


def format_of(output: Path | None, given: str | None, suffixes: Mapping[str, str]) -> str:
    """The format of what a command writes: as --format says, or as the file's name ends.

    Args:
        output: the file; None: the standard output.
        given: by --format.
        suffixes: of each format; the first is that of what has no suffix.

    Raises:
        UsageError: there is no standard output; or the name is a folder's, or ends as another
            format's, or, without --format, as none's.
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
    """Stores a value, and takes no second one, of which the first would be lost without a word."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "given twice; run the command once for each")
        setattr(namespace, self.dest, values)


class Parser(ArgumentParser):
    """An argument parser whose errors are one line, and that takes no empty argument."""

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else list(args)
        for before, argument in pairwise(["", *args]):
            if not argument or _EMPTY_OPTION.fullmatch(argument):
                option = argument.rstrip("=") or (before if before.startswith("-") else "")
                self.error(f"{option or 'an argument'} is empty; name something or leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        self.exit(2, f"error: {one_line(message)}; see {self.prog} --help\n")


def add_command(
    commands,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    example: str,
    exit_codes: dict[int, str] | None = None,
) -> Parser:
    """A command's parser.

    Args:
        commands: what `add_subparsers` gave.
        name: of the command.
        run: does it.
        summary: one line; stands in the list of commands too.
        example: a command line and what it does.
        exit_codes: those that mean something else than `EXIT_CODES` says.
    """
    codes = EXIT_CODES | (exit_codes or {})
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}\n\nexit codes:\n"
        + "\n".join(f"  {code:<4} {meaning}" for code, meaning in codes.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def text_of(argument: str) -> str:
    """Read an argument that is text; a locale without UTF-8 leaves its bytes escaped."""
    if argument.isprintable():
        return argument
    try:
        return os.fsencode(argument).decode("utf-8-sig")
    except UnicodeError:
        raise argparse.ArgumentTypeError(f"{argument!r} is not UTF-8; convert it") from None


def text_list(argument: str) -> tuple[str, ...]:
    """Texts between commas."""
    return comma_list(text_of(argument))


def comma_list(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def set_names(text: str) -> tuple[str, ...]:
    """Names between commas, one at least."""
    names = comma_list(text)
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no test set")
    return names


def add_output(
    parser: argparse.ArgumentParser, help: str, dest: str = "output", metavar: str = "FILE"
) -> None:
    """Where to write, given once at most."""
    parser.add_argument("-o", dest=dest, type=Path, action=_Once, metavar=metavar, help=help)


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Which test sets of a decoding."""
    parser.add_argument(
        "--sets",
        type=set_names,
        default=(),
        metavar="LIST",
        help="test sets to read, as test_cv_en,test_cv_it (default: all that are decoded)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model."""
    parser.add_argument("--model", metavar="PATH|ZIP|HUB_ID", help=DEFAULT_MODEL)


def add_speech_guard(parser: argparse.ArgumentParser) -> None:
    """Whether words are dropped where the sound cannot be speech."""
    parser.add_argument(
        "--no-speech-guard",
        dest="speech_guard",
        action="store_false",
        help="keep words even where the sound is silence, steady noise or hum",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and where and how exactly it computes."""
    add_model(parser)
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, ...; without it a GPU where there is one"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="of the large layers on a CPU; the lower ones are faster (default: float32)",
    )
