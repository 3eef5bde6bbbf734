"""`mlma align`: when each word of a known text was said."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.cli import files, model
from espnet_mlma.cli.parser import (
    add_command,
    add_model_options,
    add_output,
    binary_stdin,
    format_of,
    shown,
    text_of,
)
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_text

FORMATS = {name: files.FORMATS[name] for name in ("textgrid", "ctm", "json")}


def add_to(commands) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "align",
        run,
        "find when each word of a known text was said",
        'mlma align talk.wav --text "good morning to you all" -o talk.TextGrid\n'
        "  writes tiers of words and symbols that Praat opens; a word begins a little before the\n"
        "  peak of its first symbol, and ends a little after that of its last",
    )
    parser.add_argument("file", metavar="FILE", help="sound file, or - for stdin")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", type=text_of, help="what was said")
    text.add_argument("--text-file", type=Path, metavar="FILE", help="holds it, in UTF-8")
    add_model_options(parser)
    parser.add_argument(
        "--format", choices=tuple(FORMATS), help="(default: as FILE ends, else textgrid)"
    )
    add_output(parser, "write it there (default: print it)")


def run(arguments: argparse.Namespace) -> None:
    """Align, and print or write the result."""
    text = arguments.text
    if text is None:
        text = read_text(arguments.text_file, "give a file with the text")
    form = format_of(arguments.output, arguments.format, FORMATS)
    is_stdin = arguments.file == "-"
    if not is_stdin and not os.path.exists(arguments.file):
        raise MlmaError(f"{shown(arguments.file)}: no such file")
    inputs = (arguments.file, arguments.text_file, *model.inputs(arguments))
    refuse_inputs([arguments.output] if arguments.output else [], inputs)
    name, recogniser = model.load(arguments)

    from espnet_mlma.decode import formats

    transcript = recogniser.align(binary_stdin() if is_stdin else arguments.file, text)
    source = formats.Source("stdin" if is_stdin else shown(arguments.file), shown(name))
    contents = formats.FORMATS[form].render(transcript, source)
    files.print_or_write(contents, arguments.output)
