"""One shard of a formatted set: a Kaldi archive of FLAC files and the record of what it holds."""

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
from espnet_mlma.audio.archives import ArchiveMember, AudioFile, iter_archive
from espnet_mlma.claims import claim
from espnet_mlma.errors import MlmaError, MlmaWarning


class DamagedShard(MlmaError):
    """An archive is not as it was written."""


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
        modified: the archive's date, nanoseconds.
        checksum: of the archive's bytes (BLAKE2b).
        kept: id, offset of its sound in the archive, and number of samples at 16 kHz.
        dropped: id, reason and detail.
        notes: id, and what was read in another way than usual.
    """

    key: str
    size: int
    modified: int
    checksum: str
    kept: list[tuple[str, int, int]]
    dropped: list[tuple[str, str, str]]
    notes: list[tuple[str, str]] = field(default_factory=list)


def source_key(shard: Shard) -> str:
    """A digest of the shard's utterances, spans and speeds, and of what tells its files apart.

    That is their size, date, inode and date of their inode: a copy that keeps the date of another
    file of the same size changes the last.
    """
    digest = hashlib.sha256()
    for item in shard.items:
        place = item.audio.archive if isinstance(item.audio, ArchiveMember) else item.audio.path
        try:
            status = place.stat()
            stamp = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        except (OSError, ValueError):
            stamp = None
        digest.update(repr((item, stamp)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def finished(shard: Shard, verify: bool = False) -> Record | None:
    """Read the record of a shard that was made from the same audio; None if it is to be made.

    An archive that was written to since, by its date, is compared with its checksum.

    Args:
        shard: the shard.
        verify: compare the checksum whatever the date is.

    Raises:
        DamagedShard: the archive is not as it was written.
    """
    try:
        record = Record(**json.loads(shard.record_path.read_text(encoding="utf-8")))
        if record.key != source_key(shard):
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
    return record


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def make(shard: Shard) -> Record:
    """Write the archive, then its record; sound that cannot be read is left out and noted.

    One process at a time makes a shard; another that comes meanwhile waits for it.

    Raises:
        MlmaError: a source archive is damaged, or the disk is full or not writable.
    """
    with claim(shard.path, "makes it", wait=True):
        kept, dropped, notes, size, digest = [], [], [], 0, _digest()
        key = source_key(shard)
        shard.record_path.unlink(missing_ok=True)
        with files.whole(shard.path) as new, open(new, "wb") as ark:
            for item, samples, said in _read(shard):
                notes += [(item.id, note) for note in said]
                if isinstance(samples, MlmaError):
                    dropped.append((item.id, "broken_audio", str(samples)))
                    continue
                kept.append((item.id, size + len(item.id.encode()) + 1, len(samples)))  # `<id> `
                entry = _entry(item.id, samples)
                digest.update(entry)
                size += ark.write(entry)
        modified = shard.path.stat().st_mtime_ns
        record = Record(key, size, modified, digest.hexdigest(), kept, dropped, notes)
        files.write(shard.record_path, json.dumps(asdict(record), ensure_ascii=False))
    return record


def _entry(id_: str, samples: np.ndarray) -> bytes:
    """The sound of an utterance as it is in an archive."""
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    options = {"format": "flac", "subtype": "PCM_16"}
    entry = io.BytesIO()
    kaldi.save_ark(
        entry, {id_: (SAMPLE_RATE, pcm)}, write_function="soundfile", write_kwargs=options
    )
    return entry.getvalue()


def _read(shard: Shard) -> Iterator[tuple[Item, np.ndarray | MlmaError, list[str]]]:
    """Each item, its samples or why there are none, and what its reader warned of."""
    if not isinstance(shard.items[0].audio, ArchiveMember):
        for item in shard.items:
            yield item, *_samples(item, item.audio.path)
        return
    of_member: dict[str, list[Item]] = defaultdict(list)
    for item in shard.items:
        of_member[item.audio.member].append(item)
    for member, source in iter_archive(shard.items[0].audio.archive, of_member):
        content = source.read()
        for item in of_member.pop(member, []):
            yield item, *_samples(item, io.BytesIO(content))
    for items in of_member.values():
        for item in items:
            yield item, MlmaError(f"{item.audio}: no such member of the archive"), []


def _samples(item: Item, source: Path | BinaryIO) -> tuple[np.ndarray | MlmaError, list[str]]:
    """(samples,) at 16 kHz and at the utterance's speed, or why there are none; and warnings."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", MlmaWarning)
        try:
            samples = read_audio(source, item.start, item.end, name=str(item.audio))
        except MlmaError as error:
            return error, []
    said = [str(one.message) for one in heard if issubclass(one.category, MlmaWarning)]
    if item.speed != 1:
        samples = soxr.resample(samples, SAMPLE_RATE * item.speed, SAMPLE_RATE)
    if not len(samples):
        return MlmaError(f"{item.audio}: holds no samples"), []
    return samples, said
