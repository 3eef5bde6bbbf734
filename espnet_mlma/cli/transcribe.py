"""`mlma transcribe`: recognise sound files; write text, subtitles or tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from espnet_mlma.arguments import refuse_inputs
from espnet_mlma.cli import model
from espnet_mlma.cli.archive import (
    Job,
    Options,
    Result,
    recognise,
    record,
    result_of,
    share,
    without_finished,
)
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
from espnet_mlma.numbers import finite, natural, not_negative, positive, shard

if TYPE_CHECKING:
    from espnet_mlma.decode import Transcript

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
        "folder for the files of --format; keeps the subfolders of a FILE that is a folder; run "
        "again, it skips finished files (default: beside each sound, for stdin the current folder; "
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
    many = parser.add_argument_group("many files")
    many.add_argument(
        "--jobs",
        type=natural,
        default=1,
        metavar="N",
        help="processes; each loads the model (default: 1)",
    )
    many.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="I/N",
        help="recognise only the I-th of N equal parts of the files, as on several machines",
    )
    many.add_argument(
        "--overwrite",
        action="store_true",
        help="recognise again what an earlier run has written (default: with --output, finished "
        "files are skipped)",
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
    formats, folder = arguments.format, arguments.folder
    check_options(arguments)
    search = tuple(search_options(arguments).items())
    sounds, wrong = find_sounds(arguments.files)
    for path, reason in wrong.items():
        print(f"error: {one_line(shown(path))}: {reason}", file=sys.stderr)
    planned = plan_outputs(sounds, formats, folder, arguments.overwrite)
    mine = share([Job(*job) for job in planned], arguments.shard)
    if not planned:
        raise SystemExit(1)
    options = Options(
        model.choose(arguments.model),
        arguments.device,
        arguments.precision,
        search,
        arguments.batch_seconds,
        arguments.language,
        arguments.vad,
    )
    inputs = (*(sound.path for sound in sounds), *model.inputs(arguments))
    refuse_inputs((file for _, files in planned for file in files.values()), inputs)
    jobs = mine
    if folder is not None:
        make_folder(folder)
        if arguments.overwrite:
            record(folder, options)
        else:
            jobs = without_finished(mine, folder, options)
    counts = Counts(files=len(mine) + len(wrong), finished=len(mine) - len(jobs))
    counts.failed["missing"] += len(wrong)
    is_alone = len(arguments.files) == len(planned) == 1
    if is_alone and jobs:
        counts.add(recognise_one(jobs[0], options))
    elif jobs:
        recognise_several(jobs, options, arguments.jobs, counts)
    print(counts, file=sys.stderr)
    if counts.failed.total():
        raise SystemExit(1)


def check_options(arguments: argparse.Namespace) -> None:
    """Check options that depend on each other, and the standard streams.

    Raises:
        UsageError: they contradict each other, or a stream is closed.
    """
    if arguments.folder is not None and not arguments.format:
        raise UsageError("--output needs formats, and there is no --format; add one")
    if arguments.overwrite and not arguments.format:
        raise UsageError("--overwrite has no effect without --format; add one")
    if arguments.jobs > 1 and STDIN in arguments.files:
        raise UsageError("--jobs cannot share the standard input; name files")
    if not arguments.format:
        check_stdout()
    if STDIN in arguments.files:
        binary_stdin()  # fails before a model is loaded


@dataclass
class Counts:
    """What became of the files of a run.

    Attributes:
        files: all of them.
        finished: skipped, because an earlier run recognised them.
        seconds: of audio that was recognised.
        failed: number of files by reason.
    """

    files: int
    finished: int = 0
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    start: float = field(default_factory=time.perf_counter)

    def add(self, result: Result) -> None:
        """Count a file; print its error."""
        self.seconds += result.seconds
        if result.reason is not None:
            self.failed[result.reason] += 1
            print(f"error: {result.error}", file=sys.stderr)

    def __str__(self) -> str:
        spent = time.perf_counter() - self.start
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.failed.items() if n)
        finished = f", {self.finished} of them by an earlier run" if self.finished else ""
        return (
            f"{self.files - self.failed.total()} of {self.files} files{finished}"
            f"{f' ({reasons})' if reasons else ''}, {self.seconds:.1f} s of audio "
            f"in {spent:.1f} s, {self.seconds / spent:.0f} x real time"
        )


def recognise_several(
    jobs: Sequence[Job], options: Options, processes: int, counts: Counts
) -> None:
    """Recognise files and count the results; print the texts of those without output files."""
    from tqdm import tqdm

    with tqdm(total=len(jobs), unit="file", leave=False, disable=not sys.stderr.isatty()) as bar:
        for job, result in zip(jobs, recognise(jobs, options, processes), strict=True):
            bar.clear()
            if result.text is not None:
                print(f"{one_line(shown(job.sound))}: {result.text}".rstrip(), flush=True)
            counts.add(result)
            bar.update()


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


def recognise_one(job: Job, options: Options) -> Result:
    """Recognise a file of any length; write its files, or print its text as it becomes final.

    On a terminal the printed text itself shows the progress, and there is no bar.
    """
    recogniser, audio = options.load(), audio_of(job.sound)
    is_shown = bool(job.files) or not sys.stdout.isatty()
    with Progress(job.sound.name, length_of(job.sound), is_shown) as progress:
        try:
            if job.files:
                outcome = recogniser.transcribe(audio, vad=options.vad, progress=progress)
            else:
                print_parts(recogniser.iter_transcribe(audio, vad=options.vad, progress=progress))
                return Result(progress.seconds)
        except MlmaError as error:
            outcome = error
    return result_of(job, outcome, options.model)._replace(seconds=progress.seconds)


def print_parts(parts: Iterator[Transcript]) -> None:
    """Print the texts of a recording's parts on one line, also if an error ends them."""
    separator = ""
    try:
        for part in parts:
            print(separator + part.text, end="", flush=True)
            separator = " "
    except MlmaError:
        if separator:
            print()
        raise
    print(flush=True)


def audio_of(sound: Path) -> Path | BinaryIO:
    """Return a file as the recogniser reads it; stdin as a binary stream."""
    return binary_stdin() if sound == STDIN else sound


def length_of(sound: Path) -> float | None:
    """Return the seconds of audio in a file's header; None: unknown."""
    from espnet_mlma.audio import duration_of

    return None if sound == STDIN else duration_of(sound)
