"""Recognise many files: batches, processes, shards, and re-runs that skip finished files."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from espnet_mlma import files
from espnet_mlma.claims import claim
from espnet_mlma.cli import model
from espnet_mlma.cli.files import STDIN
from espnet_mlma.cli.parser import binary_stdin, shown
from espnet_mlma.errors import MlmaError, one_line

if TYPE_CHECKING:
    from espnet_mlma.decode import Recogniser, Transcript

# In the output folder: what its transcripts were made with.
RECORD = "transcribed_with.json"
# Files that a process gets at once.
_CHUNK = 64


class Job(NamedTuple):
    """A sound to recognise, and the file to write for each format."""

    sound: Path
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Options:
    """What the transcripts of a run depend on.

    Attributes:
        model, device, precision: of `add_model_options`.
        search: options of `Decoding`.
        batch_seconds: most audio that is encoded at once.
        language: the spoken language; None: guessed.
        vad: skip parts without speech.
    """

    model: str
    device: str | None
    precision: str
    search: tuple[tuple[str, Any], ...]
    batch_seconds: float
    language: str | None
    vad: bool

    def load(self) -> Recogniser:
        """Load the model."""
        chosen = argparse.Namespace(model=self.model, device=self.device, precision=self.precision)
        options = {"batch_seconds": self.batch_seconds, "language": self.language}
        return model.load(chosen, dict(self.search), **options)[1]


class Result(NamedTuple):
    """What became of a file.

    Attributes:
        seconds: of audio that was recognised.
        text: None if files were written or the sound was not recognised.
        reason: `damaged`, `unreadable` or `not written`; None: the whole sound was recognised.
        error: the error in one line; None: there is none.
    """

    seconds: float
    text: str | None = None
    reason: str | None = None
    error: str | None = None


def share(jobs: Sequence[Job], shard: tuple[int, int]) -> list[Job]:
    """Return the jobs of shard (number from 1, number of shards)."""
    number, of = shard
    return list(jobs[number - 1 :: of])


def without_finished(jobs: Sequence[Job], folder: Path, options: Options) -> list[Job]:
    """Return the jobs whose files do not exist yet, or are older than the sound or the record.

    Args:
        jobs: with files in the folder.
        folder: output folder; `RECORD` is written into it.
        options: must be those of the record.

    Raises:
        MlmaError: the folder has transcripts of another model or of other options.
    """
    place, made_with = folder / RECORD, _made_with(options)
    with claim(place, "writes it", wait=True):
        if not place.exists():
            files.write(place, made_with)
            return list(jobs)
        found = files.read_text(place, "give another --output, or --overwrite")
    if found != made_with:
        raise MlmaError(
            f"{folder}: has transcripts of {_difference(found, made_with)}; give another "
            "--output, or --overwrite to replace them"
        )
    since = place.stat().st_mtime_ns
    return [job for job in jobs if not _is_finished(job, since)]


def record(folder: Path, options: Options) -> None:
    """Write the record of a run that replaces all transcripts."""
    place = folder / RECORD
    with claim(place, "writes it", wait=True):
        files.write(place, _made_with(options))


def _made_with(options: Options) -> str:
    """Describe in JSON what transcripts depend on: not the device, nor the size of batches."""
    from espnet_mlma.decode import Decoding
    from espnet_mlma.decode.fingerprint import of_decoding
    from espnet_mlma.loading.paths import located

    with located(Path(options.model)) as found:
        made_with = of_decoding(*found, options.batch_seconds, Decoding(**dict(options.search)))
    del made_with["options"]["batch_seconds"]
    values = {
        "model": {key: made_with[key] for key in ("checkpoint", "config", "calibration")},
        "search": made_with["options"],
        "language_model": made_with["language_model_digest"],
        "precision": options.precision,
        "language": options.language,
        "vad": options.vad,
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _difference(found: str, wanted: str) -> str:
    try:
        before, now = json.loads(found), json.loads(wanted)
        name = next(key for key in now if before.get(key) != now[key])
    except (ValueError, AttributeError, StopIteration):
        return "an unknown run"
    return "another model" if name == "model" else f"other options ({name})"


def _is_finished(job: Job, since: int) -> bool:
    """Return whether a job's files are newer than its sound and the record, and whole."""
    if _marker(job).exists():
        return False
    try:
        changed = max(since, job.sound.stat().st_mtime_ns)
        return all(file.stat().st_mtime_ns >= changed for file in job.files.values())
    except OSError:
        return False


def recognise(jobs: Sequence[Job], options: Options, processes: int) -> Iterator[Result]:
    """Recognise the sounds of all jobs, and write their files.

    Args:
        jobs: what to do.
        options: of the run.
        processes: each loads the model, and gets its share of the CPU's cores.

    Yields:
        What became of each sound, in order.

    Raises:
        MlmaError: the model cannot be loaded, or a process was killed.
    """
    if processes == 1:
        yield from _results(options.load(), jobs, options)
        return
    from espnet_mlma.workers import pool

    chunk = max(1, min(_CHUNK, len(jobs) // (4 * processes)))
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    with pool(processes, "recognises files", option="--jobs") as workers:
        chunks = [jobs[i : i + chunk] for i in range(0, len(jobs), chunk)]
        found = [workers.submit(_in_process, part, options, threads) for part in chunks]
        for future in found:
            yield from future.result()


@cache
def _loaded(options: Options, threads: int) -> Recogniser:
    import torch

    from espnet_mlma.cli import silence_imports
    from espnet_mlma.memory import keep_freed_memory

    silence_imports()
    keep_freed_memory()
    torch.set_num_threads(threads)
    return options.load()


def _in_process(jobs: Sequence[Job], options: Options, threads: int) -> list[Result]:
    return list(_results(_loaded(options, threads), jobs, options))


def _results(recogniser: Recogniser, jobs: Sequence[Job], options: Options) -> Iterator[Result]:
    from espnet_mlma.decode.many_files import transcribe_files

    sounds = (binary_stdin() if job.sound == STDIN else job.sound for job in jobs)
    outcomes = transcribe_files(recogniser, sounds, vad=options.vad)
    for job, outcome in zip(jobs, outcomes, strict=True):
        yield result_of(job, outcome, options.model)


def result_of(job: Job, outcome: Transcript | MlmaError, model_name: str) -> Result:
    """Write the files of a job, if it has any, and return what became of its sound.

    Args:
        job: the sound, and the files to write.
        outcome: its transcript, or why there is none or only a part of one.
        model_name: as the user gave it.
    """
    from espnet_mlma.audio import DamagedAudio

    if not isinstance(outcome, MlmaError):
        transcript, reason, error = outcome, None, None
    else:
        is_damaged = isinstance(outcome, DamagedAudio)
        transcript = outcome.transcript if is_damaged else None
        reason = "damaged" if is_damaged else "unreadable"
        error = _error_line(job.sound, outcome)
    if transcript is None:
        return Result(0.0, None, reason, error)
    if not job.files:
        return Result(transcript.duration, transcript.text, reason, error)
    try:
        _write_files(transcript, job, model_name, error)
    except MlmaError as failure:
        return Result(0.0, None, "not written", _error_line(job.sound, failure))
    return Result(transcript.duration, None, reason, error)


def _marker(job: Job) -> Path:
    """Return the file that says that a job's sound was damaged: a re-run recognises it again."""
    return next(iter(job.files.values())).with_suffix(".damaged")


def _write_files(transcript: Transcript, job: Job, model_name: str, error: str | None) -> None:
    """Write a transcript in each format of a job, and what was wrong into `.damaged`.

    Args:
        transcript: of the readable part of the sound.
        job: has the files.
        model_name: as the user gave it.
        error: why a part of the sound is missing; None: it is whole.

    Raises:
        MlmaError: a file cannot be written.
    """
    from espnet_mlma.decode import formats

    name = "stdin" if job.sound == STDIN else shown(job.sound)
    source = formats.Source(name, shown(model_name))
    if error is not None:
        files.write(_marker(job), f"{error}\n")
    for form, file in job.files.items():
        files.write(file, formats.FORMATS[form].render(transcript, source))
    if error is None:
        _marker(job).unlink(missing_ok=True)


def _error_line(sound: Path, error: MlmaError) -> str:
    """Return an error in one line that names the sound."""
    where = "" if sound == STDIN or str(sound) in str(error) else f"{sound}: "
    return one_line(f"{where}{error}")
