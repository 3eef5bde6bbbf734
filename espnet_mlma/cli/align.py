"""`mlma align`: when each word of a known text was said."""

from __future__ import annotations

import argparse
from pathlib import Path

from espnet_mlma.cli import model
from espnet_mlma.cli.parser import add_command, add_model_options, binary_stdin, shown
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import write


def add_to(commands) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "align",
        run,
        "find when each word of a known text was said",
        'mlma align talk.wav --text "good morning to you all" -o talk.TextGrid\n'
        "  writes tiers of words and symbols that Praat opens",
    )
    parser.add_argument("file", metavar="FILE", help="sound file, or - for stdin")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="what was said")
    text.add_argument("--text-file", type=Path, metavar="FILE", help="holds it, in UTF-8")
    add_model_options(parser)
    parser.add_argument(
        "--format",
        choices=("textgrid", "ctm", "json"),
        default="textgrid",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help="write it there (default: print it)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Align, and print or write the result."""
    text = arguments.text if arguments.text is not None else read_text(arguments.text_file)
    name, recogniser = model.load(arguments)

    from espnet_mlma.decode import formats

    is_stdin = arguments.file == "-"
    transcript = recogniser.align(binary_stdin() if is_stdin else arguments.file, text)
    source = formats.Source("stdin" if is_stdin else shown(arguments.file), name)
    contents = formats.FORMATS[arguments.format].render(transcript, source)
    if arguments.output is None:
        print(contents, end="")
    else:
        write(arguments.output, contents)


def read_text(path: Path) -> str:
    """A text file whole.

    Raises:
        MlmaError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MlmaError(f"{path}: {error.strerror}; give a file with the text") from None
    except UnicodeDecodeError as error:
        raise MlmaError(f"{path}: not UTF-8 at byte {error.start}; convert it") from None
