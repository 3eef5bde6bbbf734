"""Decode one part of a file with libsndfile or FFmpeg.

FFmpeg reads MP3 and FLAC, because libsndfile stops at their declared length, and formats that
libsndfile cannot read. Samples of the two agree to 1e-6; FFmpeg decodes Opus at 48 kHz.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import av
import numpy as np
import soundfile
from av.container import InputContainer
from av.error import FFmpegError

from espnet_mlma.audio.files import DamagedAudio, FilePart, PartFile
from espnet_mlma.errors import MlmaError

# Samples of all channels, (time, channels) float32 in [-1, 1], and their rate.
Piece = tuple[int, np.ndarray]

# An MP3 may end two frames before its declared length: the encoder's padding.
MISSING_SECONDS = 0.1
# Rates outside are from damaged headers.
LOWEST_RATE, HIGHEST_RATE = 1000, 768000
_OPEN_ENDED_FRAMES = 2**63 - 1
# Values decoded at once, over all channels: a header may declare a thousand channels.
_PIECE_VALUES = 2**20
# Never open the files and addresses in an untrusted playlist.
_FFMPEG_OPTIONS = {"protocol_whitelist": "none"}
_WIDE_INTEGERS = {"s64": "<i8", "s64p": "<i8"}  # PyAV cannot convert these


def pieces(file: BinaryIO, part: FilePart, name: str) -> Generator[Piece]:
    """Decode a part from its beginning, in pieces of at most about a second.

    Raises:
        DamagedAudio: after the readable pieces, if some are missing.
        MlmaError: the part is not readable as audio.
    """
    seconds = 0.0
    try:
        for rate, samples in _grouped(_opened(file, part, name)):
            check_rate(rate, name)
            seconds += len(samples) / rate
            yield rate, samples
    except MlmaError:
        raise
    except Exception as error:  # decoders raise many types
        if seconds:
            raise DamagedAudio.at(name, seconds) from None
        raise _unreadable(name, error) from None
    whole = max(part.declared or 0.0, seconds * (1 + part.missing))
    if part.is_cut or seconds < whole - MISSING_SECONDS:
        raise DamagedAudio.at(name, seconds, None if part.is_cut else whole)


def _grouped(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join pieces to about a second each, which costs less in Python and in the resampler."""
    held: list[np.ndarray] = []
    kind, count = (0, 0), 0
    try:
        for rate, samples in pieces:
            most = min(rate, _PIECE_VALUES // samples.shape[1])
            if held and (kind != (rate, samples.shape[1]) or count >= most):
                yield kind[0], np.concatenate(held)
                held, count = [], 0
            kind = rate, samples.shape[1]
            held.append(samples)
            count += len(samples)
    except Exception:
        if held:
            yield kind[0], np.concatenate(held)
        raise
    if held:
        yield kind[0], np.concatenate(held)


def check_rate(rate: int, name: str) -> None:
    """Check that a sample rate is plausible.

    Raises:
        MlmaError: `rate`, in Hz, is out of range.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise MlmaError(
            f"{name}: sample rate in the header is {rate} Hz, not {LOWEST_RATE} to {HIGHEST_RATE}; "
            "correct the header"
        )


def _unreadable(name: str, error: Exception) -> MlmaError:
    why = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
    why = " ".join(str(why).split()) or type(error).__name__
    return MlmaError(f"{name}: not readable as audio ({why})")


def _opened(file: BinaryIO, part: FilePart, name: str) -> Iterator[Piece]:
    sound = None if part.is_ffmpeg else open_with_libsndfile(PartFile(file, part))
    if sound is None or sound.format == "MP3":
        yield from _by_ffmpeg(file, part, name)
        return
    with sound:
        check_rate(sound.samplerate, name)
        yield from by_libsndfile(sound, name, 0, sound.frames)


def open_with_libsndfile(view: PartFile) -> soundfile.SoundFile | None:
    """Open a part; None: libsndfile cannot read it, or does not know its length."""
    is_midi_dump = view.read(2) == b"\xf0\x7e"
    view.seek(0)
    if is_midi_dump:  # libsndfile prints each damaged block to standard output
        return None
    try:
        sound = soundfile.SoundFile(cast(BinaryIO, view))
    except Exception:  # FFmpeg is tried next, and raises its own error
        return None
    if sound.frames == _OPEN_ENDED_FRAMES:  # soundfile can open such a FLAC, but not read it
        sound.close()
        return None
    return sound


def by_libsndfile(sound: soundfile.SoundFile, name: str, first: int, last: int) -> Iterator[Piece]:
    """Read the samples from `first` to `last`, in pieces of at most about a second.

    Raises:
        DamagedAudio: after the readable samples, if more than `MISSING_SECONDS` are missing.
    """
    rate = sound.samplerate
    size = max(1, min(rate, _PIECE_VALUES // sound.channels))
    reached = first
    try:
        if first:
            sound.seek(first)
        while reached < last:
            samples = sound.read(min(size, last - reached), dtype="float32", always_2d=True)
            if not len(samples):
                break
            reached += len(samples)
            yield rate, samples
    except soundfile.SoundFileError:
        raise DamagedAudio.at(name, reached / rate, last / rate) from None
    if reached < last - MISSING_SECONDS * rate:
        raise DamagedAudio.at(name, reached / rate, last / rate)


@contextmanager
def opened_with_ffmpeg(
    file: BinaryIO, part: FilePart, name: str
) -> Iterator[tuple[InputContainer, av.AudioStream]]:
    """Open a part, and choose the audio track that a player would choose.

    Raises:
        MlmaError: the part has no audio.
    """
    try:
        container = av.open(PartFile(file, part), "r", options=_FFMPEG_OPTIONS)
    except Exception as error:
        raise _unreadable(name, error) from None
    with container:
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise MlmaError(f"{name}: has no audio")
        if stream.codec_context is None:
            raise MlmaError(f"{name}: the audio codec is unknown; convert it to wav or flac")
        yield container, stream


def _by_ffmpeg(file: BinaryIO, part: FilePart, name: str) -> Iterator[Piece]:
    """Decode all readable frames, then raise the first error."""
    with opened_with_ffmpeg(file, part, name) as (container, stream):
        seconds = 0.0
        fault: tuple[float, FFmpegError] | None = None
        packets = container.demux()
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError as error:
                fault = fault or (seconds, error)
                break
            if packet is None:
                break
            if packet.stream_index != stream.index:
                continue
            try:
                frames = packet.decode()
            except FFmpegError as error:
                # An MP3 decoder recovers, and the frames of the part were counted.
                fault = fault if part.seconds else fault or (seconds, error)
                continue
            for frame in cast(list[av.AudioFrame], frames):
                seconds += frame.samples / max(1, frame.sample_rate)
                yield frame.sample_rate, _samples(frame)
        if fault and seconds:
            raise DamagedAudio.at(name, fault[0])
        if fault:
            raise _unreadable(name, fault[1])
        if container.format.name == "flac" and stream.duration is not None:
            whole = float(stream.duration * stream.time_base)
            if seconds < whole - MISSING_SECONDS:
                raise DamagedAudio.at(name, seconds, whole)


def _samples(frame: av.AudioFrame) -> np.ndarray:
    channels = frame.layout.nb_channels
    if frame.format.name in _WIDE_INTEGERS:
        count = frame.samples * (1 if frame.format.is_planar else channels)
        samples = np.stack(
            [
                np.frombuffer(plane, _WIDE_INTEGERS[frame.format.name], count)
                for plane in frame.planes
            ]
        )
    else:
        samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype.kind == "u":
        samples = (samples - 128.0) / 128
    elif samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return samples.astype(np.float32)
