"""Sound of any format and rate as blocks of mono samples at 16 kHz, in constant memory.

libsndfile reads what it can, so that a file gives here the samples `read_audio` gives for training
and scoring; FFmpeg's libraries, through PyAV, read the rest: m4a, webm, video.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
import soxr

from espnet_mlma.audio.whole import MISSING_SECONDS, SAMPLE_RATE, check_level
from espnet_mlma.errors import MlmaError

# What a whole file may lack of the length its header tells: Matroska counts in frames of its
# slowest stream.
_MISSING_MATROSKA_SECONDS = 1.0
# Writers into a pipe cannot come back to put the length into the header; these mean "to the end".
_OPEN_ENDED_BYTES = 0x7FFF0000
_OPEN_ENDED_FRAMES = 2**63 - 1
_LONGEST_OGG_PAGE = 65307
# Values decoded at once, all channels together: a header may claim a thousand channels.
_PIECE_VALUES = 2**20
# A playlist names other files and addresses; a file from a stranger must not make us open them.
_FFMPEG_OPTIONS = {"protocol_whitelist": "none"}


def audio_blocks(source: str | Path | BinaryIO, seconds: float = 30.0) -> Iterator[np.ndarray]:
    """Read sound from its beginning, block by block.

    Of a file that is damaged or cut off, what comes before is given, and then the error is raised;
    likewise of one whose samples are no sound.
    A missing end shows in wav, aiff, flac, mp3, ogg, mp4 and webm; a transport stream, or an mp3
    without a length in its header, may end anywhere.

    Args:
        source: a path, or an open binary file; a pipe is first copied into a temporary file.
        seconds: length of a block; the last one may be shorter.

    Yields:
        (samples,) float32 in [-1, 1] at 16 kHz, not empty; channels are averaged.

    Raises:
        MlmaError: no such file, no sound in it, or not all of its sound.
    """
    name = _name_of(source)
    size = max(1, round(seconds * SAMPLE_RATE))
    faults: list[MlmaError] = []
    empty = True
    with _seekable(source, name) as file:
        pieces = _until_fault(_decoded(file, name), faults)
        for block in _in_blocks(_resampled(pieces), size):
            check_level(block, name)
            empty = False
            yield block
    if faults:
        raise faults[0]
    if empty:
        raise MlmaError(f"{name}: holds no samples")


def as_samples(audio) -> np.ndarray:
    """Samples in memory as (time,) float32; whole numbers are divided by their type's range.

    Args:
        audio: one channel at 16 kHz, an array or a tensor on any device.

    Raises:
        MlmaError: it is something else, or reaches far beyond [-1, 1], or is not all numbers.
    """
    if hasattr(audio, "detach"):
        audio = audio.detach().cpu()
    try:
        samples = np.asarray(audio)
    except (TypeError, ValueError):
        samples = np.empty(0, object)
    # Whole numbers that are Python's own do not say what range they have.
    if samples.dtype.kind not in ("fi" if hasattr(audio, "dtype") else "f"):
        kind = type(audio).__name__ if samples.dtype.kind in "OSU" else samples.dtype
        raise MlmaError(
            f"audio is {kind}; give a path, an open file, or one channel of samples at 16 kHz, "
            "floats between -1 and 1 or signed integers"
        )
    if samples.ndim != 1:
        raise MlmaError(f"samples have shape {samples.shape}; give one channel, (time,)")
    if samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
    samples = samples.astype(np.float32)
    check_level(samples, "audio")
    return samples


def duration_of(source: str | Path | BinaryIO) -> float | None:
    """Seconds of sound by the header, to show progress with; the header may be wrong.

    Args:
        source: a path, or an open binary file, which is left at its beginning.

    Returns:
        None where the header does not tell, and for a pipe, of which nothing is read.

    Raises:
        MlmaError: no such file, or no sound in it.
    """
    is_path = isinstance(source, str | Path)
    if Path(source).is_fifo() if is_path else not source.seekable():
        return None
    name = _name_of(source)
    with _seekable(source, name) as file:
        try:
            sound = _open_with_libsndfile(file)
            if sound is not None:
                with sound:
                    return sound.frames / sound.samplerate
            with _opened_with_ffmpeg(file, name) as (container, stream):
                if stream.duration is not None:
                    return float(stream.duration * stream.time_base)
                return None if container.duration is None else container.duration / av.time_base
        finally:
            file.seek(0)


def pcm_blocks(stream: BinaryIO, rate: int, seconds: float = 0.1) -> Iterator[np.ndarray]:
    """Read bare 16-bit little-endian samples, and give them on as soon as they are there.

    Resampling from another rate holds back some 35 ms, from 8 kHz up to 100 ms. A last sample of
    which not all bytes came is dropped.

    Args:
        stream: of one channel.
        rate: of the samples in Hz.
        seconds: most sound in a block; one is shorter when no more is there.

    Yields:
        (samples,) float32 in [-1, 1] at 16 kHz, not empty.
    """
    pieces = ((rate, samples) for samples in _read_pcm(stream, round(seconds * rate)))
    return (block for block in _resampled(pieces) if len(block))


def _read_pcm(stream: BinaryIO, size: int) -> Iterator[np.ndarray]:
    """Samples as they arrive, `size` at most."""
    read = getattr(stream, "read1", stream.read)  # read waits until it has all it was asked for
    carried = b""
    while data := read(2 * max(1, size) - len(carried)):
        data = carried + data
        whole = len(data) // 2 * 2
        carried = data[whole:]
        yield np.frombuffer(data[:whole], "<i2") / np.float32(32768)


def _name_of(source: str | Path | BinaryIO) -> str:
    return str(source if isinstance(source, str | Path) else getattr(source, "name", "audio"))


@contextmanager
def _seekable(source: str | Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The source as an open file at its beginning; both libraries and mp4 jump back and forth."""
    with ExitStack() as stack:
        try:
            file = source
            if isinstance(source, str | Path):
                file = stack.enter_context(open(source, "rb"))
            if not file.seekable():
                pipe, file = file, stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(pipe, file)
        except FileNotFoundError:
            raise MlmaError(f"{name}: no such file") from None
        except OSError as error:
            raise MlmaError(f"{name}: cannot be read ({error.strerror})") from None
        if file.seek(0, 2) == 0:
            raise MlmaError(f"{name}: empty file")
        file.seek(0)
        yield file


def _until_fault(
    pieces: Iterator[tuple[int, np.ndarray]], faults: list[MlmaError]
) -> Iterator[tuple[int, np.ndarray]]:
    """The pieces up to an error, which is noted, so that those before it are still given on."""
    try:
        yield from pieces
    except MlmaError as error:
        faults.append(error)


def _resampled(pieces: Iterator[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """Pieces (rate, samples) at 16 kHz: sample for sample what `soxr.resample` makes of the whole.

    The rate may change on the way, as where one stream was appended to another.
    """
    for rate, run in groupby(pieces, key=itemgetter(0)):
        if rate == SAMPLE_RATE:
            yield from map(itemgetter(1), run)
            continue
        stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1)
        for _, samples in run:
            yield stream.resample_chunk(samples)
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _in_blocks(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples, `size` at a time."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count >= size:
            joined = np.concatenate(held)
            whole = count // size * size
            yield from joined[:whole].reshape(-1, size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def _decoded(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces (rate, mono samples) of about a second or less, as they lie in the file."""
    missing, cut = _missing_share(file), _ends_within_ogg_page(file)
    sound = _open_with_libsndfile(file)
    if sound is None:
        yield from _decoded_by_ffmpeg(file, name)
    else:
        with sound:
            yield from _decoded_by_libsndfile(sound, missing, name)
            if cut:
                raise _damaged(name, sound.tell() / sound.samplerate)


def _missing_share(file: BinaryIO) -> float:
    """What the header of a wav or aiff promises beyond the end of the file, in lengths of the file.

    libsndfile takes what is there for the whole.
    """
    head = file.read(8)
    byteorder = {b"RIFF": "little", b"FORM": "big"}.get(head[:4])
    promised = 8 + int.from_bytes(head[4:], byteorder) if byteorder else 0
    size = file.seek(0, 2)
    file.seek(0)
    return max(0, promised - size) / size if promised < _OPEN_ENDED_BYTES else 0.0


def _ends_within_ogg_page(file: BinaryIO) -> bool:
    """Whether an ogg lacks its end, which no header tells. Source: RFC 3533, section 6."""
    is_ogg = file.read(4) == b"OggS"
    file.seek(max(0, file.seek(0, 2) - _LONGEST_OGG_PAGE))
    tail = file.read() if is_ogg else b""
    file.seek(0)
    last_page = tail[tail.rfind(b"OggS") :]
    if not is_ogg or len(last_page) < 27:
        return is_ogg
    segments = last_page[27 : 27 + last_page[26]]
    return len(last_page) < 27 + last_page[26] + sum(segments)


def _damaged(name: str, reached: float, whole: float | None = None) -> MlmaError:
    of_whole = "" if whole is None else f" of {whole:.1f} s"
    return MlmaError(f"{name}: cut off or damaged after {reached:.1f} s{of_whole}; copy it anew")


def _open_with_libsndfile(file: BinaryIO) -> soundfile.SoundFile | None:
    """None: not for libsndfile, and the file is back at its beginning."""
    try:
        sound = soundfile.SoundFile(file)
        if sound.frames != _OPEN_ENDED_FRAMES:  # such a flac soundfile opens, but cannot read
            return sound
        sound.close()
    except (RuntimeError, TypeError):  # TypeError: the name ends in .raw
        pass
    file.seek(0)
    return None


def _decoded_by_libsndfile(
    sound: soundfile.SoundFile, missing: float, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    rate = sound.samplerate
    size = max(1, min(rate, _PIECE_VALUES // sound.channels))
    whole = sound.frames * (1 + missing)
    reached = 0
    try:
        while len(samples := sound.read(size, dtype="float32", always_2d=True)):
            reached += len(samples)
            yield rate, samples.mean(axis=1, dtype=np.float32)
    except RuntimeError:
        raise _damaged(name, reached / rate, whole / rate) from None
    if reached < whole - MISSING_SECONDS * rate:
        raise _damaged(name, reached / rate, whole / rate)


@contextmanager
def _opened_with_ffmpeg(
    file: BinaryIO, name: str
) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    """The file and the one of its sound tracks that a player would choose."""
    try:
        container = av.open(file, options=_FFMPEG_OPTIONS)
    except av.FFmpegError as error:
        raise MlmaError(f"{name}: not readable as sound ({error.strerror})") from None
    with container:
        stream = container.streams.best("audio")
        if stream is None:
            raise MlmaError(f"{name}: holds no sound")
        if stream.codec_context is None:
            raise MlmaError(f"{name}: sound of an unknown kind; convert it to wav or flac")
        yield container, stream


def _decoded_by_ffmpeg(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    with _opened_with_ffmpeg(file, name) as (container, stream):
        seconds = end = 0.0
        try:
            for packet in container.demux():
                if packet.pts is not None:
                    last = packet.pts + (packet.duration or 0)
                    end = max(end, float(last * packet.time_base))
                if packet.stream_index != stream.index:
                    continue
                for frame in packet.decode():
                    seconds += frame.samples / frame.sample_rate
                    yield frame.sample_rate, _mono(frame)
        except av.FFmpegError as error:
            if seconds == 0:
                raise MlmaError(f"{name}: not readable as sound ({error.strerror})") from None
            raise _damaged(name, seconds) from None
        # An mp4 that ends early fails above. Of Matroska the demuxer takes any end for the end.
        whole = (container.duration or 0) / av.time_base
        if "matroska" in container.format.name and end < whole - _MISSING_MATROSKA_SECONDS:
            raise _damaged(name, seconds, whole)


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """The mean of the channels, (samples,) float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "u":
        samples = (samples - 128.0) / 128
    elif samples.dtype.kind == "i":
        samples = samples / 2.0 ** (8 * samples.dtype.itemsize - 1)
    return samples.astype(np.float32).mean(axis=0, dtype=np.float32)
