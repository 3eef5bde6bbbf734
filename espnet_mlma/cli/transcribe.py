"""`mlma transcribe`: recognise sound files; write text, subtitles or tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.cli import model
from espnet_mlma.cli.files import FORMATS, STDIN, find_sounds, make_folder, plan_outputs
from espnet_mlma.cli.parser import (
    Parser,
    UsageError,
    add_model_options,
    add_output,
    add_speech_guard,
    binary_stdin,
    check_stdout,
    comma_list,
    describe,
    shown,
    text_list,
)
from espnet_mlma.cli.progress import Progress
from espnet_mlma.decode.options import Decoding
from espnet_mlma.errors import MlmaError, one_line
from espnet_mlma.files import write
from espnet_mlma.numbers import finite, natural, not_negative, positive

if TYPE_CHECKING:
    from espnet_mlma.decode import Recogniser

# Default of --beam-size with a language model or hotwords.
SEARCH_BEAM = 16
# Options that have no effect without another one.
_NEEDED = {"lm_weight": "lm", "word_bonus": "lm", "hotword_weight": "hotwords"}


def add_arguments(parser: Parser) -> None:
    """Add the command's options."""
    describe(
        parser,
        run,
        "mlma transcribe talk.mp3 interviews/ --format srt,json --output subtitles\n"
        "  writes talk.srt, talk.json and the same for files below interviews/ into subtitles/",
        {1: "an error; or a file could not be recognised, and the others were"},
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
        help=f"write files: {', '.join(FORMATS)}, or all (default: print one line of text for each "
        "file, after its name if there are several)",
    )
    add_output(
        parser,
        "folder for the files of --format; keeps the subfolders of a FILE that is a folder, and "
        "replaces existing files (default: beside each sound, for stdin the current folder; "
        "existing files are not replaced)",
        dest="folder",
        metavar="DIR",
    )
    parser.add_argument(
        "--language",
        type=language_code,
        metavar="CODE",
        help="spoken language, such as en or it: passed to models that take one, such as OWSM-CTC, "
        "and written to JSON (default: guessed from the text)",
    )
    parser.add_argument("--vad", action="store_true", help="skip parts without speech")
    add_speech_guard(parser)
    parser.add_argument(
        "--batch-seconds",
        type=positive,
        default=60.0,
        metavar="S",
        help="maximum of audio that is encoded at once (default: 60)",
    )
    search = parser.add_argument_group("search")
    search.add_argument(
        "--beam-size",
        type=natural,
        metavar="N",
        help="number of prefixes kept; 1 is the best path "
        f"(default: 1, and {SEARCH_BEAM} with --lm or --hotwords)",
    )
    search.add_argument(
        "--token-threshold",
        type=finite,
        metavar="L",
        help="skip symbols with a lower log-probability in a frame "
        f"(default: {Decoding.token_threshold:g})",
    )
    search.add_argument(
        "--score-threshold",
        type=not_negative,
        metavar="D",
        help="drop prefixes whose log-probability is this far below the best "
        f"(default: {Decoding.score_threshold:g})",
    )
    search.add_argument("--lm", metavar="FILE", help="n-gram model of words, ARPA or KenLM binary")
    search.add_argument(
        "--lm-weight",
        type=finite,
        metavar="W",
        help=f"factor of the language model's log-probabilities (default: {Decoding.lm_weight:g})",
    )
    search.add_argument(
        "--word-bonus",
        type=finite,
        metavar="B",
        help="added for each word with --lm, because language models prefer few words "
        f"(default: {Decoding.word_bonus:g})",
    )
    search.add_argument(
        "--hotwords",
        type=text_list,
        metavar="WORD,...",
        help="words or phrases to expect",
    )
    search.add_argument(
        "--hotword-weight",
        type=finite,
        metavar="W",
        help=f"added for each letter of a hotword found (default: {Decoding.hotword_weight:g})",
    )


def language_code(text: str) -> str:
    """Check an ISO 639 code of two or three letters."""
    if not (len(text) in (2, 3) and text.isascii() and text.islower()):
        raise argparse.ArgumentTypeError(f"{text!r} is no language code such as en or ita")
    return text


def known_formats(text: str) -> tuple[str, ...]:
    """Split names of formats at commas; `all` means all of them."""
    names = tuple(dict.fromkeys(comma_list(text)))
    unknown = [name for name in names if name not in (*FORMATS, "all")]
    if unknown or not names:
        what = repr(unknown[0] if unknown else text)
        raise argparse.ArgumentTypeError(f"{what} is none of {', '.join(FORMATS)}, all")
    return tuple(FORMATS) if "all" in names else names


def run(arguments: argparse.Namespace) -> None:
    """Recognise each file; report files that fail, and continue.

    Raises:
        UsageError: options contradict each other.
        SystemExit: 1 if a file failed.
    """
    formats = arguments.format
    if arguments.folder is not None and not formats:
        raise UsageError("--output needs formats, and there is no --format; add one")
    search = search_options(arguments)
    if not formats:
        check_stdout()
    if STDIN in arguments.files:
        binary_stdin()  # fails before a model is loaded
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
        search,
        batch_seconds=arguments.batch_seconds,
        language=arguments.language,
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
    """Return the options of `Decoding` that the command line gives.

    Raises:
        UsageError: an option has no effect without another one, which is missing.
    """
    given = {field.name: getattr(arguments, field.name) for field in fields(Decoding)}
    given = {name: value for name, value in given.items() if value is not None}
    for name, needed in _NEEDED.items():
        if name in given and not given.get(needed):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} has no effect without --{needed}; add it")
    is_search = given.get("lm") is not None or given.get("hotwords")
    return {"beam_size": SEARCH_BEAM if is_search else 1} | given


def write_files(
    recogniser: Recogniser,
    model_name: str,
    sound: Path,
    files: Mapping[str, Path],
    vad: bool,
    label: str,
) -> float:
    """Recognise a sound and write a file for each format; return the seconds of audio.

    Raises:
        DamagedAudio: a part of the sound is missing; the files have the rest.
        MlmaError: the sound cannot be recognised.
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
    """Print a sound's text on one line as it becomes final; return the seconds of audio.

    On a terminal the text itself shows the progress, and there is no bar.

    Args:
        recogniser: the model.
        sound: file, or `STDIN`.
        vad: skip parts without speech.
        label: name of the progress bar.
        prefix: printed before the first word.
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
    """Return a file as the recogniser reads it; stdin as a binary stream."""
    return binary_stdin() if sound == STDIN else sound


def length_of(sound: Path) -> float | None:
    """Return the seconds of audio in a file's header; None: unknown."""
    from espnet_mlma.audio import duration_of

    return None if sound == STDIN else duration_of(sound)


def summary(sounds: int, failed: int, seconds: float, spent: float) -> str:
    """Return one line on all files."""
    line = f"{sounds - failed} of {sounds} files, {seconds:.1f} s of audio in {spent:.1f} s"
    return f"{line}, {seconds / spent:.0f} x real time"
