"""One shard of a formatted set: a Kaldi archive of FLAC files and the record of what it holds."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import kaldiio
import numpy as np
import soxr

from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.corpora.audio import iter_archive
from espnet_mlma.corpora.utterance import ArchiveMember, AudioFile
from espnet_mlma.errors import MlmaError


@dataclass(frozen=True)
class Item:
    """The sound of one utterance: a file or a span of it in seconds, and the speed to give it."""

    id: str
    audio: AudioFile | ArchiveMember
    start: float | None
    end: float | None
    speed: float


@dataclass(frozen=True)
class Shard:
    """Utterances that go into one archive: members of one archive, or files."""

    path: Path
    items: tuple[Item, ...]

    @property
    def record_path(self) -> Path:
        return self.path.with_suffix(".json")


@dataclass(frozen=True)
class Record:
    """What became of a shard.

    Args:
        key: says which audio it was made from, see `source_key`.
        size: of the archive in bytes.
        kept: id, offset of its sound in the archive, and number of samples at 16 kHz.
        dropped: id, reason and detail.
    """

    key: str
    size: int
    kept: list[tuple[str, int, int]]
    dropped: list[tuple[str, str, str]]


def source_key(shard: Shard) -> str:
    """A digest of the shard's utterances, spans, speeds, and of its files' sizes and dates."""
    digest = hashlib.sha256()
    for item in shard.items:
        place = item.audio.archive if isinstance(item.audio, ArchiveMember) else item.audio.path
        try:
            status = place.stat()
            stamp = (status.st_size, status.st_mtime_ns)
        except OSError:
            stamp = None
        digest.update(repr((item, stamp)).encode())
    return digest.hexdigest()


def finished(shard: Shard) -> Record | None:
    """The record of a whole shard that was made from the same audio; None if it is to be made."""
    try:
        record = Record(**json.loads(shard.record_path.read_text(encoding="utf-8")))
        is_whole = shard.path.stat().st_size == record.size
    except (OSError, ValueError, TypeError):
        return None
    return record if is_whole and record.key == source_key(shard) else None


def make(shard: Shard) -> Record:
    """Write the archive, then its record; sound that cannot be read is left out and noted.

    Raises:
        MlmaError: a source archive is damaged, or the disk is full or not writable.
    """
    kept, dropped = [], []
    key = source_key(shard)
    new = shard.path.with_suffix(".new")
    try:
        shard.record_path.unlink(missing_ok=True)
        with open(new, "wb") as ark:
            for item, samples in _read(shard):
                if isinstance(samples, MlmaError):
                    dropped.append((item.id, "broken_audio", str(samples)))
                    continue
                offset = ark.tell() + len(item.id.encode()) + 1  # behind `<id> `
                kept.append((item.id, offset, len(samples)))
                _append(ark, item.id, samples)
            size = ark.tell()
        os.replace(new, shard.path)
        record = Record(key, size, kept, dropped)
        new.write_text(json.dumps(asdict(record), ensure_ascii=False), encoding="utf-8")
        os.replace(new, shard.record_path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise MlmaError(
            f"cannot write {shard.path}: {error.strerror}; make room or choose another --dumpdir, "
            "and the same command goes on from here"
        ) from None
    return record


def _append(ark: BinaryIO, id_: str, samples: np.ndarray) -> None:
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    options = {"format": "flac", "subtype": "PCM_16"}
    kaldiio.save_ark(
        ark, {id_: (SAMPLE_RATE, pcm)}, write_function="soundfile", write_kwargs=options
    )


def _read(shard: Shard) -> Iterator[tuple[Item, np.ndarray | MlmaError]]:
    if not isinstance(shard.items[0].audio, ArchiveMember):
        for item in shard.items:
            yield item, _samples(item, item.audio.path)
        return
    of_member: dict[str, list[Item]] = defaultdict(list)
    for item in shard.items:
        of_member[item.audio.member].append(item)
    for member, source in iter_archive(shard.items[0].audio.archive, of_member):
        content = source.read()
        for item in of_member.pop(member, []):
            yield item, _samples(item, io.BytesIO(content))
    for items in of_member.values():
        for item in items:
            yield item, MlmaError(f"{item.audio}: no such member of the archive")


def _samples(item: Item, source: Path | BinaryIO) -> np.ndarray | MlmaError:
    """(samples,) at 16 kHz and at the utterance's speed, or why there are none."""
    try:
        samples = read_audio(source, item.start, item.end, name=str(item.audio))
    except MlmaError as error:
        return error
    if item.speed != 1:
        samples = soxr.resample(samples, SAMPLE_RATE * item.speed, SAMPLE_RATE)
    if not len(samples):
        return MlmaError(f"{item.audio}: holds no samples")
    return samples
