"""Write one shard of a formatted set: a Kaldi archive of FLAC files and its record."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr
from omniio import kaldi

from espnet_mlma import files
from espnet_mlma.audio import SAMPLE_RATE, read_audio
from espnet_mlma.audio.archives import AudioFile, iter_archive
from espnet_mlma.claims import claim
from espnet_mlma.data import fingerprint
from espnet_mlma.data.fingerprint import Fingerprints
from espnet_mlma.errors import MlmaError, MlmaWarning


class DamagedShard(MlmaError):
    """An archive has changed since it was written."""


@dataclass(frozen=True)
class ShardItem:
    """The audio of one utterance.

    Attributes:
        id: of the utterance.
        audio: its audio file.
        start, end: its span of the file in seconds; None for the whole file.
        speed: factor to speed it up by.
    """

    id: str
    audio: AudioFile
    start: float | None
    end: float | None
    speed: float


@dataclass(frozen=True)
class AudioShard:
    """Utterances that are written into one Kaldi archive.

    Attributes:
        path: of the archive.
        items: either plain files or members of one tar archive.
    """

    path: Path
    items: tuple[ShardItem, ...]

    @property
    def record_path(self) -> Path:
        """The file of the `ShardRecord`."""
        return self.path.with_suffix(".json")

    @property
    def fingerprints_path(self) -> Path:
        """The file of the `Fingerprints` of its utterances at their own speed."""
        return self.path.with_suffix(".fp")


@dataclass(frozen=True)
class ShardRecord:
    """What a shard holds, and what it was made from.

    Attributes:
        key: of its sources, see `source_key`.
        size: of the archive in bytes.
        modified: modification time of the archive in nanoseconds.
        checksum: of the archive's bytes (BLAKE2b).
        kept: id, offset in the archive, and number of samples at 16 kHz.
        dropped: id, reason and detail.
        notes: id, and a warning about its audio.
    """

    key: str
    size: int
    modified: int
    checksum: str
    kept: list[tuple[str, int, int]]
    dropped: list[tuple[str, str, str]]
    notes: list[tuple[str, str]] = field(default_factory=list)


def source_key(shard: AudioShard) -> str:
    """Compute a digest of a shard's utterances, spans, speeds and source files.

    A file counts by its size, modification time, inode and inode's change time. The last changes
    when a file is replaced by one with the same size and modification time.
    """
    digest = hashlib.sha256()
    for item in shard.items:
        try:
            status = item.audio.path.stat()
            stamp = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        except (OSError, ValueError):
            stamp = None
        digest.update(repr((item, stamp)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def finished(shard: AudioShard, verify: bool = False) -> ShardRecord | None:
    """Read the record of a finished shard; None if the shard must be made.

    The checksum is compared where the modification time has changed. A shard without fingerprints
    is made again.

    Args:
        shard: the shard.
        verify: compare the checksum in any case.

    Raises:
        DamagedShard: the archive has changed since it was written.
    """
    try:
        record = ShardRecord(**json.loads(shard.record_path.read_text(encoding="utf-8")))
        if record.key != source_key(shard) or not shard.fingerprints_path.is_file():
            return None
        status = shard.path.stat()
        is_whole = status.st_size == record.size
        if is_whole and (verify or status.st_mtime_ns != record.modified):
            with open(shard.path, "rb") as ark:
                is_whole = hashlib.file_digest(ark, _digest).hexdigest() == record.checksum
    except (OSError, ValueError, TypeError):
        return None
    if not is_whole:
        raise DamagedShard(f"{shard.path} is damaged")
    if verify:
        try:
            fingerprint.read(shard.fingerprints_path)
        except MlmaError:
            raise DamagedShard(f"{shard.fingerprints_path} is damaged") from None
    return record


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def make_shard(shard: AudioShard) -> ShardRecord:
    """Write the archive, the fingerprints, then the record. Unreadable audio is dropped.

    One process at a time makes a shard; a second one waits.

    Raises:
        MlmaError: a source archive is damaged, or the disk is full or not writable.
    """
    with claim(shard.path, "makes it", wait=True):
        kept, dropped, notes, prints, size, digest = [], [], [], [], 0, _digest()
        key = source_key(shard)
        shard.record_path.unlink(missing_ok=True)
        with files.whole(shard.path) as new, open(new, "wb") as ark:
            for item, samples, warned in _read(shard):
                notes += [(item.id, message) for message in warned]
                if not isinstance(samples, MlmaError):
                    prints.append((item.id, fingerprint.fingerprint(samples)))
                    samples = _at_speed(item, samples)
                if isinstance(samples, MlmaError):
                    dropped.append((item.id, "broken_audio", str(samples)))
                    continue
                kept.append((item.id, size + len(item.id.encode()) + 1, len(samples)))  # `<id> `
                entry = _entry(item.id, samples)
                digest.update(entry)
                size += ark.write(entry)
        fingerprint.write(shard.fingerprints_path, Fingerprints.join(prints))
        modified = shard.path.stat().st_mtime_ns
        record = ShardRecord(key, size, modified, digest.hexdigest(), kept, dropped, notes)
        files.write(shard.record_path, json.dumps(asdict(record), ensure_ascii=False))
    return record


def _entry(id_: str, samples: np.ndarray) -> bytes:
    """Encode an utterance as an entry of a Kaldi archive."""
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    options = {"format": "flac", "subtype": "PCM_16"}
    entry = io.BytesIO()
    kaldi.save_ark(
        entry, {id_: (SAMPLE_RATE, pcm)}, write_function="soundfile", write_kwargs=options
    )
    return entry.getvalue()


def _read(shard: AudioShard) -> Iterator[tuple[ShardItem, np.ndarray | MlmaError, list[str]]]:
    """Read each item: its samples or why there are none, and the warnings."""
    if shard.items[0].audio.member is None:
        for item in shard.items:
            yield item, *_samples(item, item.audio.path)
        return
    of_member: dict[str, list[ShardItem]] = defaultdict(list)
    for item in shard.items:
        of_member[item.audio.member or ""].append(item)
    for member, source in iter_archive(shard.items[0].audio.path, of_member):
        content = source.read()
        for item in of_member.pop(member, []):
            yield item, *_samples(item, io.BytesIO(content))
    for items in of_member.values():
        for item in items:
            yield item, MlmaError(f"{item.audio}: not found in the archive"), []


def _samples(item: ShardItem, source: Path | BinaryIO) -> tuple[np.ndarray | MlmaError, list[str]]:
    """Read (samples,) at 16 kHz, or why there are none; and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MlmaWarning)
        try:
            samples = read_audio(source, item.start, item.end, name=str(item.audio))
        except MlmaError as error:
            return error, []
    warned = [str(one.message) for one in caught if issubclass(one.category, MlmaWarning)]
    return samples, warned


def _at_speed(item: ShardItem, samples: np.ndarray) -> np.ndarray | MlmaError:
    """Return an utterance at its speed, or why there is none."""
    if item.speed != 1:
        samples = soxr.resample(samples, SAMPLE_RATE * item.speed, SAMPLE_RATE)
    return samples if len(samples) else MlmaError(f"{item.audio}: has no samples")
