"""The same sound in many containers and codecs."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import soundfile

from tests.campaign.fixtures import RATE


@dataclass(frozen=True)
class Container:
    """A way to write sound.

    Args:
        name: of the row in the table, and of files.
        suffix: of a file's name.
        write: the bytes of a file with (samples,) at 16 kHz.
        rate: what it is written at, in Hz.
        joins: whether files joined by `cat` are a file by its own rules.
        sequential: whether the beginning can be read without the end.
        tells: whether a file tells how long it is, so that a missing end shows.
    """

    name: str
    suffix: str
    write: Callable[[np.ndarray], bytes]
    joins: bool = False
    sequential: bool = True
    tells: bool = True


def _by_libsndfile(format: str, subtype: str, rate: int = RATE) -> Callable[[np.ndarray], bytes]:
    def write(samples: np.ndarray) -> bytes:
        content = io.BytesIO()
        soundfile.write(content, _at(samples, rate), rate, format=format, subtype=subtype)
        return content.getvalue()

    return write


def _at(samples: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    return samples if rate == RATE else soxr.resample(samples, RATE, rate)


class _Pipe:
    """Where a writer cannot come back to its header."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def _by_ffmpeg(
    format: str,
    codec: str,
    rate: int = RATE,
    layout: str = "mono",
    video: str | None = None,
    pipe: bool = False,
    options: dict[str, str] | None = None,
) -> Callable[[np.ndarray], bytes]:
    def write(samples: np.ndarray) -> bytes:
        if options and options.get("movflags") == "faststart":  # FFmpeg opens it a second time
            with tempfile.NamedTemporaryFile(suffix=".m4a") as file:
                fill(file.name, samples)
                return file.read()
        target = _Pipe() if pipe else io.BytesIO()
        fill(target, samples)
        return bytes(target.content) if pipe else target.getvalue()

    def fill(target, samples: np.ndarray) -> None:
        with av.open(target, "w", format=format, options=options or {}) as container:
            picture = _picture(container, video)
            stream = container.add_stream(codec, rate=rate, layout=layout)
            if codec == "wmav2":
                stream.bit_rate = 64000
            if picture is not None:
                for number in range(int(5 * len(samples) / RATE) + 1):
                    frame = av.VideoFrame.from_ndarray(
                        np.full((64, 64, 3), number % 255, np.uint8), "rgb24"
                    )
                    frame.pts = number
                    container.mux(picture.encode(frame))
                container.mux(picture.encode(None))
            for packet in _packets(stream, _at(samples, rate), rate, layout):
                container.mux(packet)

    return write


def _picture(container, video: str | None):
    if video is None:
        return None
    stream = container.add_stream(video, rate=5)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream


def _packets(stream, samples: np.ndarray, rate: int, layout: str):
    channels = len(av.AudioLayout(layout).channels)
    planes = np.repeat(samples[None].astype(np.float32), channels, axis=0)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), "fltp", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    format = stream.codec_context.format
    resampler = av.AudioResampler(format=format or "fltp", layout=layout, rate=rate)
    queue = av.AudioFifo()
    for part in resampler.resample(frame):
        queue.write(part)
    size, pts = stream.codec_context.frame_size or 1024, 0
    while True:
        part = queue.read(size) or queue.read(0, partial=True)
        if part is None:
            break
        part.pts, part.time_base = pts, Fraction(1, rate)
        pts += part.samples
        yield stream.encode(part)
    yield stream.encode(None)


CONTAINERS = (
    Container("wav 16 bit", "wav", _by_libsndfile("WAV", "PCM_16")),
    Container("wav 8 bit", "wav", _by_libsndfile("WAV", "PCM_U8")),
    Container("wav 24 bit", "wav", _by_libsndfile("WAV", "PCM_24", 44100)),
    Container("wav 32 bit", "wav", _by_libsndfile("WAV", "PCM_32")),
    Container("wav float", "wav", _by_libsndfile("WAV", "FLOAT", 48000)),
    Container("wav double", "wav", _by_libsndfile("WAV", "DOUBLE")),
    Container("wav 64 bit", "wav", _by_ffmpeg("wav", "pcm_s64le")),
    Container("wav mu-law", "wav", _by_libsndfile("WAV", "ULAW", 8000)),
    Container("wav IMA ADPCM", "wav", _by_libsndfile("WAV", "IMA_ADPCM")),
    Container("wav GSM", "wav", _by_libsndfile("WAV", "GSM610", 8000)),
    Container("wav from a pipe", "wav", _by_ffmpeg("wav", "pcm_s16le", pipe=True), tells=False),
    Container("rf64", "wav", _by_libsndfile("RF64", "PCM_16")),
    Container("w64", "w64", _by_libsndfile("W64", "PCM_16")),
    Container("aiff", "aiff", _by_libsndfile("AIFF", "PCM_16")),
    Container("aiff float", "aif", _by_libsndfile("AIFF", "FLOAT")),
    Container("au", "au", _by_libsndfile("AU", "PCM_16")),
    Container("caf", "caf", _by_libsndfile("CAF", "PCM_16")),
    Container("caf alac", "caf", _by_libsndfile("CAF", "ALAC_16"), sequential=False),
    Container("voc", "voc", _by_libsndfile("VOC", "PCM_16"), tells=False),
    Container("nist", "sph", _by_libsndfile("NIST", "PCM_16")),
    Container("flac", "flac", _by_libsndfile("FLAC", "PCM_16")),
    Container("flac from a pipe", "flac", _by_ffmpeg("flac", "flac", pipe=True), tells=False),
    Container("ogg vorbis", "ogg", _by_libsndfile("OGG", "VORBIS"), joins=True),
    Container("ogg opus", "opus", _by_libsndfile("OGG", "OPUS"), joins=True),
    Container("ogg flac", "oga", _by_ffmpeg("ogg", "flac"), joins=True),
    Container("mp3", "mp3", _by_ffmpeg("mp3", "libmp3lame"), joins=True),
    Container(
        "mp3 by libsndfile", "mp3", _by_libsndfile("MP3", "MPEG_LAYER_III", 44100), joins=True
    ),
    Container(
        "mp3 without Xing",
        "mp3",
        _by_ffmpeg("mp3", "libmp3lame", options={"write_xing": "0", "id3v2_version": "0"}),
        joins=True,
        tells=False,
    ),
    Container("mp2", "mp2", _by_ffmpeg("mp2", "mp2"), joins=True, tells=False),
    Container("aac adts", "aac", _by_ffmpeg("adts", "aac"), joins=True, tells=False),
    Container("m4a", "m4a", _by_ffmpeg("ipod", "aac"), sequential=False),
    Container("m4a alac", "m4a", _by_ffmpeg("ipod", "alac"), sequential=False),
    Container(
        "m4a with its index in front",
        "m4a",
        _by_ffmpeg("ipod", "aac", options={"movflags": "faststart"}),
        sequential=False,
    ),
    Container(
        "mp4 in fragments",
        "mp4",
        _by_ffmpeg(
            "mp4",
            "aac",
            options={"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"},
        ),
        tells=False,
    ),
    Container("mp4 with video", "mp4", _by_ffmpeg("mp4", "aac", video="mpeg4"), sequential=False),
    Container("mov", "mov", _by_ffmpeg("mov", "pcm_s16le"), sequential=False),
    Container("3gp", "3gp", _by_ffmpeg("3gp", "aac"), sequential=False),
    Container("webm opus", "webm", _by_ffmpeg("webm", "libopus", 48000)),
    Container("webm live", "webm", _by_ffmpeg("webm", "libopus", 48000, pipe=True), tells=False),
    Container("mka", "mka", _by_ffmpeg("matroska", "flac")),
    Container("mkv with video", "mkv", _by_ffmpeg("matroska", "aac", video="mpeg4")),
    Container("avi", "avi", _by_ffmpeg("avi", "pcm_s16le", video="mpeg4")),
    Container("avi mp3", "avi", _by_ffmpeg("avi", "libmp3lame")),
    Container("asf wma", "wma", _by_ffmpeg("asf", "wmav2")),
    Container("flv", "flv", _by_ffmpeg("flv", "aac", 44100)),
    Container("mpeg ts", "ts", _by_ffmpeg("mpegts", "aac"), joins=True, tells=False),
    Container("mpeg ps", "mpg", _by_ffmpeg("mpeg", "mp2"), tells=False),
    Container("ac3", "ac3", _by_ffmpeg("ac3", "ac3", 48000), joins=True, tells=False),
    Container("eac3", "eac3", _by_ffmpeg("eac3", "eac3", 48000), joins=True, tells=False),
    Container("wavpack", "wv", _by_ffmpeg("wv", "wavpack")),
    Container("tta", "tta", _by_ffmpeg("tta", "tta"), sequential=False),
    Container("nut", "nut", _by_ffmpeg("nut", "pcm_s16le"), tells=False),
)
