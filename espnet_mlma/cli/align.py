"""`mlma align`: find the time of each word of a known text."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.cli import files, model
from espnet_mlma.cli.parser import (
    Parser,
    add_model_options,
    add_output,
    binary_stdin,
    describe,
    format_of,
    shown,
    text_of,
)
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_text

FORMATS = {name: files.FORMATS[name] for name in ("textgrid", "ctm", "json")}


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        'mlma align talk.wav --text "good morning to you all" -o talk.TextGrid\n'
        "  writes tiers of words and symbols for Praat; a word begins shortly before the peak of\n"
        "  its first symbol and ends shortly after the peak of its last",
    )
    parser.add_argument("file", metavar="FILE", help="sound file, or - for stdin")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", type=text_of, help="the words that were spoken")
    text.add_argument("--text-file", type=Path, metavar="FILE", help="file with the text, in UTF-8")
    add_model_options(parser)
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="(default: by the suffix of --output, else textgrid)",
    )
    add_output(parser, "file to write (default: print)")


def run(arguments: argparse.Namespace) -> None:
    """Align a text with a sound; print or write the result."""
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
