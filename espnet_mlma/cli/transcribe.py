"""`mlma transcribe`: sound files to text, subtitles or tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.cli import model
from espnet_mlma.cli.files import FORMATS, STDIN, find_sounds, make_folder, plan_outputs
from espnet_mlma.cli.parser import (
    UsageError,
    add_command,
    add_model_options,
    add_output,
    add_speech_guard,
    binary_stdin,
    check_stdout,
    comma_list,
    shown,
    text_list,
)
from espnet_mlma.cli.progress import Progress
from espnet_mlma.errors import MlmaError, one_line
from espnet_mlma.files import write
from espnet_mlma.numbers import finite, natural, positive

if TYPE_CHECKING:
    from espnet_mlma.decode import Recogniser

# Prefixes that a search keeps where --beam does not say.
SEARCH_BEAM = 16


def add_to(commands) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "transcribe",
        run,
        "recognise sound files, folders of them, or the standard input",
        "mlma transcribe talk.mp3 interviews/ --format srt,json -o subtitles\n"
        "  writes talk.srt, talk.json and those of the files below interviews/ into subtitles/",
        {1: "a file could not be recognised, and the others were; or another error"},
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="sound file, folder, or - for stdin"
    )
    add_model_options(parser)
    parser.add_argument(
        "--format",
        type=known_formats,
        default=(),
        metavar="FORMAT,...",
        help=f"write files: {', '.join(FORMATS)}, or all; without it the text is printed, one line "
        "a file, behind its name where there are several",
    )
    add_output(
        parser,
        "where to write them, with the folders they have below a FILE that is a folder; what "
        "is there is replaced (default: beside the sound, or of stdin in the current folder, where "
        "nothing is replaced)",
        dest="folder",
        metavar="DIR",
    )
    parser.add_argument(
        "--lang",
        type=language_code,
        metavar="CODE",
        help="the language, where you know it, as en or it: models that take one, as OWSM-CTC, are "
        "told it, and JSON has it in place of the guess",
    )
    parser.add_argument("--vad", action="store_true", help="leave out what is no speech")
    add_speech_guard(parser)
    parser.add_argument(
        "--batch-seconds",
        type=positive,
        default=60.0,
        metavar="S",
        help="most audio of a file that is encoded at once (default: 60)",
    )
    search = parser.add_argument_group("search")
    search.add_argument(
        "--beam",
        type=natural,
        metavar="N",
        help="prefixes kept; 1 is the best path "
        f"(default: 1, and {SEARCH_BEAM} with --lm or --hotwords)",
    )
    search.add_argument("--lm", metavar="FILE", help="n-gram model of words, ARPA or KenLM binary")
    search.add_argument("--lm-weight", type=finite, metavar="W", help="of its log-probabilities")
    search.add_argument(
        "--hotwords",
        type=text_list,
        default=(),
        metavar="WORD,...",
        help="words or phrases to expect",
    )


def language_code(text: str) -> str:
    """An ISO 639 code of two or three letters."""
    if not (len(text) in (2, 3) and text.isascii() and text.islower()):
        raise argparse.ArgumentTypeError(f"{text!r} is no code such as en or ita")
    return text


def known_formats(text: str) -> tuple[str, ...]:
    """Names of formats between commas, each once; `all` for all of them."""
    names = tuple(dict.fromkeys(comma_list(text)))
    unknown = [name for name in names if name not in (*FORMATS, "all")]
    if unknown or not names:
        what = repr(unknown[0] if unknown else text)
        raise argparse.ArgumentTypeError(f"{what} is none of {', '.join(FORMATS)}, all")
    return tuple(FORMATS) if "all" in names else names


def run(arguments: argparse.Namespace) -> None:
    """Recognise each file; those that cannot be are named and passed over.

    Raises:
        UsageError: the command line makes no sense.
        SystemExit: 1 where a file failed.
    """
    formats = arguments.format
    if arguments.folder is not None and not formats:
        raise UsageError("-o is for files, and no --format says which to write")
    if arguments.lm_weight is not None and arguments.lm is None:
        raise UsageError("--lm-weight is for a language model, and no --lm names one")
    if not formats:
        check_stdout()
    if STDIN in arguments.files:
        binary_stdin()  # where there is none, said before a model is loaded
    sounds, wrong = find_sounds(arguments.files)
    for path, reason in wrong.items():
        print(f"error: {one_line(shown(path))}: {reason}", file=sys.stderr)
    jobs = plan_outputs(sounds, formats, arguments.folder)
    if not jobs:
        raise SystemExit(1)
    inputs = (*(sound.path for sound in sounds), *model.inputs(arguments))
    refuse_inputs((file for _, files in jobs for file in files.values()), inputs)
    if arguments.folder is not None:
        make_folder(arguments.folder)
    name, recogniser = model.load(
        arguments,
        search_options(arguments),
        batch_seconds=arguments.batch_seconds,
        language=arguments.lang,
    )
    is_several = len(arguments.files) > 1 or len(jobs) > 1
    start, seconds, failed = time.perf_counter(), 0.0, 0
    for number, (sound, files) in enumerate(jobs, start=1):
        label = f"{number}/{len(jobs)} {one_line(shown(sound.name))}"
        try:
            if formats:
                seconds += write_files(recogniser, name, sound, files, arguments.vad, label)
            else:
                prefix = f"{one_line(shown(sound))}: " if is_several else ""
                seconds += print_text(recogniser, sound, arguments.vad, label, prefix)
        except MlmaError as error:
            failed += 1
            where = "" if sound == STDIN or str(sound) in str(error) else f"{sound}: "
            print(f"error: {one_line(f'{where}{error}')}", file=sys.stderr)
    failed += len(wrong)
    total = len(jobs) + len(wrong)
    print(summary(total, failed, seconds, time.perf_counter() - start), file=sys.stderr)
    if failed:
        raise SystemExit(1)


def search_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What of the command line is about the search; without an option, as `Decoding` has it."""
    given = {name: getattr(arguments, name) for name in ("lm", "lm_weight", "hotwords")}
    is_search = arguments.lm is not None or arguments.hotwords
    beam = arguments.beam or (SEARCH_BEAM if is_search else 1)
    given = {name: value for name, value in given.items() if value is not None}
    return {"beam_size": beam, "speech_guard": arguments.speech_guard} | given


def write_files(
    recogniser: Recogniser,
    model_name: str,
    sound: Path,
    files: Mapping[str, Path],
    vad: bool,
    label: str,
) -> float:
    """Recognise a sound, write a file for each format, and give the seconds of audio.

    Raises:
        DamagedAudio: after the files are written, where a part of the sound is missing.
        MlmaError: it cannot be recognised.
    """
    from espnet_mlma.audio import DamagedAudio
    from espnet_mlma.decode import formats

    damage = None
    with Progress(label, length_of(sound), True) as progress:
        try:
            transcript = recogniser.transcribe(audio_of(sound), vad=vad, progress=progress)
        except DamagedAudio as error:
            transcript, damage = error.transcript, error
    source = formats.Source("stdin" if sound == STDIN else shown(sound), shown(model_name))
    for name, file in files.items():
        write(file, formats.FORMATS[name].render(transcript, source))
    if damage is not None:
        raise damage
    return transcript.duration


def print_text(recogniser: Recogniser, sound: Path, vad: bool, label: str, prefix: str) -> float:
    """Print the text of a sound on one line, as it becomes final, and give the seconds of audio.

    Before its first word stands `prefix`.

    Where the text goes to a terminal it shows by itself how far the work is.
    """
    length = length_of(sound)
    separator = prefix
    try:
        with Progress(label, length, not sys.stdout.isatty()) as progress:
            for part in recogniser.iter_transcribe(audio_of(sound), vad=vad, progress=progress):
                print(separator + part.text, end="", flush=True)
                separator = " "
    except MlmaError:
        if separator != prefix:
            print()
        raise
    print(prefix.rstrip() if separator == prefix else "", flush=True)
    return progress.seconds


def audio_of(sound: Path) -> Path | BinaryIO:
    """What the recogniser is to read."""
    return binary_stdin() if sound == STDIN else sound


def length_of(sound: Path) -> float | None:
    """Seconds of audio as the file's header has them; None: it does not say."""
    from espnet_mlma.audio import duration_of

    return None if sound == STDIN else duration_of(sound)


def summary(sounds: int, failed: int, seconds: float, spent: float) -> str:
    """One line on all of it."""
    line = f"{sounds - failed} of {sounds} files, {seconds:.1f} s of audio in {spent:.1f} s"
    return f"{line}, {seconds / spent:.0f} x real time"
