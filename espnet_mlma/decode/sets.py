"""Stage 12 for one set: a killed run resumes, a finished set is not decoded again.

Each recognised batch is added as a line of JSON to a hidden file beside the set's folder. When all
batches are there, the folder is written from it. A run that was killed resumes after the last whole
line. Batches are planned over the whole set, so that a resumed run makes the same batches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet_mlma import claims, files
from espnet_mlma.decode import fingerprint
from espnet_mlma.decode.folder import (
    columns,
    print_skipped,
    read_lengths,
    recognise,
    show_progress,
    write_results,
)
from espnet_mlma.decode.precision import count_parameters
from espnet_mlma.decode.recogniser import Recogniser
from espnet_mlma.errors import MlmaError


@dataclass
class _Partial:
    """The batches decoded so far, and the file that holds them."""

    file: Path
    batches: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, number: int, record: Mapping[str, Any]) -> None:
        """Store a batch."""
        self.batches[number] = record
        try:
            with self.file.open("a", encoding="ascii") as file:
                file.write(json.dumps([number, record]) + "\n")
        except OSError as error:
            raise MlmaError(f"cannot write {self.file}: {error.strerror}; make room") from None

    def all(self, key: str) -> dict[str, Any]:
        """Collect what the batches have under a key, by id."""
        return {id_: of for batch in self.batches.values() for id_, of in batch[key].items()}

    @property
    def seconds(self) -> float:
        """Audio recognised so far."""
        return sum(batch["seconds"] for batch in self.batches.values())


def decode_set(
    load: Callable[[], Recogniser],
    data_dir: Path,
    batch_seconds: float,
    output_dir: Path,
    made_with: Mapping[str, Any],
) -> str:
    """Decode a set, unless it is decoded already; resume a run that was killed.

    A set with unreadable sounds is decoded again at those sounds.

    Args:
        load: loads the model; called only where something is decoded.
        data_dir: holds `wav.scp` and, from stage 3, `utt2num_samples`.
        batch_seconds: most audio in a batch, padding included.
        output_dir: replaced when all is decoded.
        made_with: from `fingerprint.of_decoding`.

    Returns:
        One line to print.

    Raises:
        MlmaError: a table or all sounds cannot be read, another process decodes the set, or the
            results cannot be written.
    """
    with claims.claim(output_dir, "decodes into it"):
        lengths = read_lengths(data_dir)
        made_with = {**made_with, "data": fingerprint.of_data(data_dir)}
        if _is_done(output_dir, made_with):
            return f"{data_dir.name}: decoded before, with the same model and options"
        if not lengths:
            raise MlmaError(f"{data_dir}: the set has no utterance; run stage 3 again")
        started = time.perf_counter()
        done = _resumed(claims.beside(output_dir, "partial"), made_with)
        before, count = done.seconds, len(done.all("rows"))
        if count:
            print(f"{data_dir.name}: resumes after {count} of {len(lengths)} utterances")
        recogniser = load()
        for batch in recognise(recogniser, data_dir, lengths, batch_seconds, done.batches):
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
        print_skipped(data_dir, len(lengths), skipped)
        measured = {
            "parameters": count_parameters(recogniser.model),
            "audio_seconds": round(done.seconds, 3),
            "skipped": skipped,
        }
        write_results(rows, output_dir, {**made_with, **measured})
        done.file.unlink()
        spent, audio = time.perf_counter() - started, done.seconds - before
        return (
            f"{data_dir.name}: {len(rows)} utterances, {audio:.0f} s of audio "
            f"in {spent:.1f} s, {audio / spent:.0f} x real time"
        )


def _is_done(folder: Path, made_with: Mapping[str, Any]) -> bool:
    try:
        found = fingerprint.read(folder) or {}
    except MlmaError:
        return False
    is_same = {key: found.get(key) for key in made_with} == made_with
    return is_same and not found.get("skipped") and (folder / "text").is_file()


def _resumed(path: Path, made_with: Mapping[str, Any]) -> _Partial:
    """Read the batches of a killed run that decoded alike, but for those with skipped sounds."""
    head = json.dumps(made_with) + "\n"
    done = _Partial(path)
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
