"""Sound files: how long they are, their samples, and their place in a `wav.scp`."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from espnet_mlma.corpora.utterance import ArchiveMember, AudioFile
from espnet_mlma.errors import MlmaError

SAMPLE_RATE = 16000
# An MP3 ends up to two of its frames before the length in its header: the encoder's padding.
MISSING_SECONDS = 0.1
# Beyond [-1, 1] by so much are integers that were made floats, and not loud sound.
_LOUDEST = 100.0
_PIPE = re.compile(r"tar -xzOf '([^']+)' '([^']+)' \|")


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Length of a sound file: `frames` samples per channel at `rate` Hz."""

    rate: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def probe(source: Path | BinaryIO, name: str = "") -> AudioInfo:
    """Read the length of a sound file from its header.

    A FLAC header promises samples that a cut-off file no longer has, so its last one is read.

    Args:
        source: a path, or an open binary file.
        name: what to call an open file in errors.

    Raises:
        MlmaError: the file is missing, empty or not readable sound.
    """
    try:
        with soundfile.SoundFile(source) as sound:
            info = AudioInfo(sound.samplerate, sound.frames)
            cut_off = sound.format == "FLAC" and info.frames > 0 and not _has_last_sample(sound)
    except (OSError, RuntimeError) as error:
        raise MlmaError(f"{name or source}: {_why_unreadable(source, error)}") from None
    if cut_off:
        raise MlmaError(f"{name or source}: cut off before its {info.frames} samples; copy it anew")
    if info.frames == 0:
        raise MlmaError(f"{name or source}: holds no samples")
    return info


def _has_last_sample(sound: soundfile.SoundFile) -> bool:
    try:
        sound.seek(sound.frames - 1)
        return len(sound.read(1)) == 1
    except RuntimeError:
        return False


def _why_unreadable(source: Path | BinaryIO, error: Exception) -> str:
    if isinstance(source, Path):
        if not source.is_file():
            return "no such file"
        if source.stat().st_size == 0:
            return "empty file"
    return f"not readable as sound ({getattr(error, 'error_string', error)})"


def read_audio(
    source: str | Path | BinaryIO,
    start: float | None = None,
    end: float | None = None,
    name: str = "",
) -> np.ndarray:
    """Read sound, or a span of it, as mono samples at 16 kHz.

    Args:
        source: a path, or an open binary file.
        start, end: the span in seconds; None for the beginning and the end of the file.
        name: what to call an open file in errors.

    Returns:
        (samples,) float32 in [-1, 1]; channels are averaged.

    Raises:
        MlmaError: the sound cannot be read, or the span is empty.
    """
    if isinstance(source, str):
        source = Path(source)
    name = name or str(source)
    try:
        with soundfile.SoundFile(source) as sound:
            first = round((start or 0.0) * sound.samplerate)
            last = sound.frames if end is None else round(end * sound.samplerate)
            last = min(last, sound.frames)
            if first >= last:
                raise MlmaError(f"{name}: no samples from {start or 0} s to {end or 'its end'}")
            sound.seek(first)
            samples = sound.read(last - first, dtype="float32", always_2d=True)
            source_rate = sound.samplerate
    except (OSError, RuntimeError) as error:
        raise MlmaError(f"{name}: {_why_unreadable(source, error)}") from None
    if len(samples) < last - first - MISSING_SECONDS * source_rate:
        raise MlmaError(f"{name}: cut off after {first + len(samples)} of {last} samples")
    mono = samples.mean(axis=1, dtype=np.float32)
    check_level(mono, name)
    if source_rate == SAMPLE_RATE:
        return mono
    return soxr.resample(mono, source_rate, SAMPLE_RATE)


def check_level(samples: np.ndarray, name: str) -> None:
    """Refuse what can be no sound.

    Args:
        samples: (samples,), which should lie in [-1, 1].
        name: of them, for the error.

    Raises:
        MlmaError: they reach far beyond, or are not all numbers.
    """
    peak = float(np.abs(samples).max(initial=0))
    if not np.isfinite(peak):
        raise MlmaError(f"{name}: has samples that are no numbers; write it anew")
    if peak > _LOUDEST:
        raise MlmaError(
            f"{name}: samples reach {peak:g}; divide them so that they lie between -1 and 1"
        )


def iter_archive(archive: Path, members: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    """Read members of a tar archive in the order they lie there, in one pass.

    Args:
        archive: a tar file, compressed by gzip or not.
        members: the names wanted; one that is not in the archive is simply not yielded.

    Raises:
        MlmaError: the archive is missing or damaged.
    """
    wanted = set(members)
    try:
        with _decompressed(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if name in wanted and entry.isfile():
                    yield name, io.BytesIO(tar.extractfile(entry).read())
            _check_end(plain, tar.offset)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise MlmaError(f"{archive}: not a whole tar archive ({error}); fetch it anew") from None


def _decompressed(archive: Path) -> BinaryIO:
    with open(archive, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(archive) if is_gzip else open(archive, "rb")


def _check_end(plain: BinaryIO, offset: int) -> None:
    """Find damage that tarfile passes over: at a header that is none it ends as at the last one.

    Args:
        plain: the archive, decompressed.
        offset: where tarfile ended.
    """
    if isinstance(plain, gzip.GzipFile):
        while plain.read(2**20):  # up to the checksum
            pass
        return
    plain.seek(offset)
    if plain.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {offset}")


def scp_value(audio: AudioFile | ArchiveMember) -> str:
    """The second column of a `wav.scp`: an absolute path, or a pipe that any Kaldi tool can run."""
    if isinstance(audio, AudioFile):
        return str(audio.path.absolute())
    if "'" in f"{audio.archive.absolute()}{audio.member}":
        raise MlmaError(f"{audio}: a quote in the name of an archive or member; rename it")
    return f"tar -xzOf '{audio.archive.absolute()}' '{audio.member}' |"


def parse_scp_value(value: str) -> AudioFile | ArchiveMember:
    """The inverse of `scp_value`.

    Raises:
        MlmaError: the value is a pipe of another form.
    """
    pipe = _PIPE.fullmatch(value)
    if pipe:
        return ArchiveMember(Path(pipe[1]), pipe[2])
    if value.endswith("|"):
        raise MlmaError(f"wav.scp: a pipe that this recipe does not write: {value}")
    return AudioFile(Path(value))
