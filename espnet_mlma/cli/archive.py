"""Recognise many files: batches, processes, shards, and re-runs that skip finished files."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
        reason: `damaged` or `unreadable`; None: the sound was recognised as a whole.
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
    place = folder / RECORD
    made_with = json.dumps(_made_with(options), indent=1, ensure_ascii=False) + "\n"
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
    made_with = json.dumps(_made_with(options), indent=1, ensure_ascii=False) + "\n"
    with claim(folder / RECORD, "writes it", wait=True):
        files.write(folder / RECORD, made_with)


def _made_with(options: Options) -> dict[str, Any]:
    from espnet_mlma import digests
    from espnet_mlma.loading.paths import located

    path = Path(options.model)
    if path.suffix == ".zip" and path.is_file():
        digest = digests.of_file(path)
    else:
        with located(path) as found:
            digest = digests.of_value([digests.of_file(file) for file in found])
    values = asdict(options)
    del values["device"], values["batch_seconds"]  # they change no text
    values["search"] = dict(options.search)
    lm = values["search"].get("lm")
    digest_of_lm = None if lm is None else digests.of_file(Path(lm))
    return values | {"model": digest, "language_model": digest_of_lm}


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
    with pool(processes, "recognises files") as workers:
        chunks = [jobs[i : i + chunk] for i in range(0, len(jobs), chunk)]
        found = [workers.submit(_in_process, part, options, threads) for part in chunks]
        for future in found:
            yield from future.result()


@cache
def _loaded(options: Options, threads: int) -> Recogniser:
    import torch

    from espnet_mlma.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    return options.load()


def _in_process(jobs: Sequence[Job], options: Options, threads: int) -> list[Result]:
    return list(_results(_loaded(options, threads), jobs, options))


def _results(recogniser: Recogniser, jobs: Sequence[Job], options: Options) -> Iterator[Result]:
    from espnet_mlma.audio import DamagedAudio
    from espnet_mlma.decode.many_files import transcribe_files

    sounds = (binary_stdin() if job.sound == STDIN else job.sound for job in jobs)
    outcomes = transcribe_files(recogniser, sounds, vad=options.vad)
    for job, outcome in zip(jobs, outcomes, strict=True):
        if not isinstance(outcome, MlmaError):
            transcript, reason, error = outcome, None, None
        else:
            is_damaged = isinstance(outcome, DamagedAudio)
            transcript = outcome.transcript if is_damaged else None
            reason = "damaged" if is_damaged else "unreadable"
            error = error_line(job.sound, outcome)
        if transcript is None:
            yield Result(0.0, None, reason, error)
            continue
        if job.files:
            write_files(transcript, job, options.model, error)
        text = None if job.files else transcript.text
        yield Result(transcript.duration, text, reason, error)


def _marker(job: Job) -> Path:
    """Return the file that says that a job's sound was damaged: a re-run recognises it again."""
    return next(iter(job.files.values())).with_suffix(".damaged")


def write_files(transcript: Transcript, job: Job, model_name: str, error: str | None) -> None:
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


def error_line(sound: Path, error: MlmaError) -> str:
    """Return an error in one line that names the sound."""
    where = "" if sound == STDIN or str(sound) in str(error) else f"{sound}: "
    return one_line(f"{where}{error}")
