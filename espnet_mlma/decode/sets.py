"""Sets of stage 12: decoded once, in batches that a killed run keeps, with what they were made by.

What is recognised is added to a hidden file beside the set's folder, a line of JSON for each batch,
and becomes the folder when all is there. A run that was stopped goes on after the last whole line.
Batches are planned over the whole set, so that an utterance has the same company either way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet_mlma import claims, digests, files
from espnet_mlma.decode import fingerprint
from espnet_mlma.decode.folder import (
    columns,
    read_lengths,
    recognise,
    say_skipped,
    show_progress,
    write_results,
)
from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.errors import MlmaError
from espnet_mlma.version import __version__


def fingerprint_of(
    config: Path, model_file: Path, batch_seconds: float, decoding: Decoding
) -> dict[str, Any]:
    """Say what a set is decoded with, but for the set.

    Args:
        config: the training configuration; a calibration beside it counts.
        model_file: the checkpoint.
        batch_seconds: most audio in a batch.
        decoding: options of the search.

    Raises:
        MlmaError: a file cannot be read.
    """
    options = asdict(decoding)
    lm, calibration = options.pop("lm"), config.with_name("calibration.yaml")
    made_with = {
        "model_file": model_file.name,
        "checkpoint": digests.of_file(model_file),
        "config": digests.of_file(config),
        "calibration": digests.of_file(calibration) if calibration.is_file() else None,
        "language_model": digests.of_file(Path(lm)) if lm else None,
        "options": {"batch_seconds": batch_seconds, **options},
        "version": __version__,
    }
    return json.loads(json.dumps(made_with))  # as it is read back


@dataclass
class _Done:
    """Batches that are decoded, and the file that keeps them."""

    file: Path
    batches: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, number: int, record: Mapping[str, Any]) -> None:
        """Keep a batch."""
        self.batches[number] = record
        try:
            with self.file.open("a", encoding="ascii") as file:
                file.write(json.dumps([number, record]) + "\n")
        except OSError as error:
            raise MlmaError(f"cannot write {self.file}: {error.strerror}; make room") from None

    def all(self, key: str) -> dict[str, Any]:
        """What the batches have under a key, by id."""
        return {id_: of for batch in self.batches.values() for id_, of in batch[key].items()}

    @property
    def seconds(self) -> float:
        """Audio that was recognised."""
        return sum(batch["seconds"] for batch in self.batches.values())


def decode_set(
    recogniser: Callable[[], Recogniser],
    data_dir: Path,
    batch_seconds: float,
    output_dir: Path,
    made_with: Mapping[str, Any],
) -> str:
    """Decode a set, unless that was done, and go on where a run was stopped.

    A set with sounds that could not be read is decoded again where they are.

    Args:
        recogniser: loads the model, when it is needed.
        data_dir: holds `wav.scp` and, from stage 3, `utt2num_samples`.
        batch_seconds: most audio in a batch, padding included.
        output_dir: is replaced when all is decoded.
        made_with: of `fingerprint_of`.

    Returns:
        A line for the user.

    Raises:
        MlmaError: a table cannot be read, no sound can, another process decodes the set, or the
            results cannot be written.
    """
    with claims.claim(output_dir, "decodes into it"):
        lengths = read_lengths(data_dir)
        made_with = {**made_with, "data": fingerprint.of_data(data_dir)}
        if _is_done(output_dir, made_with):
            return f"{data_dir.name}: decoded before, with the same model and options"
        started = time.perf_counter()
        done = _begun(claims.beside(output_dir, "partial"), made_with)
        before, count = done.seconds, len(done.all("rows"))
        if count:
            print(f"{data_dir.name}: goes on after {count} of {len(lengths)} utterances")
        for batch in recognise(recogniser(), data_dir, lengths, batch_seconds, done.batches):
            found = batch.transcripts
            record = {
                "rows": {id_: columns(transcript) for id_, transcript in found.items()},
                "skipped": dict(batch.skipped),
                "seconds": sum(transcript.duration for transcript in found.values()),
            }
            done.add(batch.number, record)
            count += len(found) + len(batch.skipped)
            show_progress(count, len(lengths))
        rows, skipped = done.all("rows"), done.all("skipped")
        if not lengths:
            raise MlmaError(f"{data_dir}: the set has no utterance; run stage 3 again")
        say_skipped(data_dir, len(lengths), skipped)
        write_results(rows, output_dir, {**made_with, "skipped": skipped})
        done.file.unlink()
        spent, audio = time.perf_counter() - started, done.seconds - before
        return (
            f"{data_dir.name}: {len(rows)} utterances, {audio:.0f} s of audio "
            f"in {spent:.1f} s, {audio / spent:.0f} x real time"
        )


def _is_done(folder: Path, made_with: Mapping[str, Any]) -> bool:
    try:
        found = dict(fingerprint.read(folder) or {})
    except MlmaError:
        return False
    return not found.pop("skipped", None) and found == made_with and (folder / "text").is_file()


def _begun(path: Path, made_with: Mapping[str, Any]) -> _Done:
    """What an earlier run decoded with the same; batches with skipped sounds are tried again."""
    head = json.dumps(made_with) + "\n"
    done = _Done(path)
    lines = path.read_text("ascii", "replace").splitlines(True) if path.is_file() else []
    whole = [head]
    for line in lines[1:] if lines[:1] == [head] else []:
        try:
            number, record = json.loads(line if line.endswith("\n") else "")
        except (ValueError, TypeError):  # cut off by a kill, or never on the disk
            break
        if not record["skipped"]:
            done.batches[number] = record
            whole.append(line)
    files.write(path, "".join(whole))
    return done
