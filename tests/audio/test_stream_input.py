"""Test that files are told apart from raw PCM on the standard input."""

import io
from collections.abc import Callable

import numpy as np

from espnet_mlma.audio import SAMPLE_RATE, pcm_blocks
from espnet_mlma.errors import MlmaError


def heads(written: Callable, encoded: Callable) -> dict[str, bytes]:
    kinds = (
        "WAV",
        "WAVEX",
        "RF64",
        "W64",
        "AIFF",
        "AU",
        "CAF",
        "FLAC",
        "OGG",
        "MP3",
        "NIST",
        "VOC",
    )
    found = {kind: written(kind) for kind in kinds}
    found["bare MP3"] = found["MP3"][found["MP3"].find(b"\xff\xf3", 600) :]
    found["big-endian WAV"] = written("WAV", endian="BIG")
    for container, codec, rate in (
        ("mp4", "aac", 48000),
        ("webm", "libopus", 48000),
        ("matroska", "pcm_s16le", 16000),
        ("adts", "aac", 44100),
        ("avi", "mp3", 44100),
        ("mp3", "libmp3lame", 44100),
        ("flv", "aac", 44100),
    ):
        found[container] = encoded(container, codec, rate)
    return found


class Dripping(io.RawIOBase):
    """Stream that returns a few bytes per read."""

    def __init__(self, data: bytes, most: int):
        self.data, self.most = data, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        size = min(self.most, len(buffer))
        given, self.data = self.data[:size], self.data[size:]
        buffer[: len(given)] = given
        return len(given)


def test_an_audio_file_is_not_accepted_as_raw_pcm(written: Callable, encoded: Callable) -> None:
    for name, data in heads(written, encoded).items():
        for most in (1, 7, 4096):
            message = ""
            try:
                list(pcm_blocks(Dripping(data[:20000], most), SAMPLE_RATE))
            except MlmaError as error:
                message = str(error)
            assert "file, not raw PCM" in message and "ffmpeg -i" in message, (name, most)


def test_raw_pcm_is_not_taken_for_a_file() -> None:
    rng = np.random.default_rng(0)
    odd = [bytes(100), b"\xff" * 100, b"\xff\xfb" * 50, b"\xff\xf1" * 50, b"RIFF" * 25, b"ID3" * 30]
    odd += [
        b"\xff",
        b"R",
        b"RIF",
        b"\xff\xfb\x90",
        b"\xff\xfb\x90\x00" + bytes(96),
        bytes(2),
        b"ftyp",
    ]
    for number in range(3000):  # the beginnings that look most like a frame
        start = [b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xe3"][number % 4]
        odd.append(start + rng.integers(0, 256, 3000, np.uint8).tobytes())
    for data in odd:
        blocks = list(pcm_blocks(Dripping(data, 4096), SAMPLE_RATE))
        found = np.concatenate([np.zeros(0, np.float32), *blocks])
        assert np.array_equal(found * 32768, np.frombuffer(data[: len(data) // 2 * 2], "<i2"))


def test_samples_like_a_header_are_delayed_briefly() -> None:
    stream = Dripping(np.full(4000, -1025, "<i2").tobytes(), 4)  # 0xFBFF: as an MP3 begins
    assert len(next(pcm_blocks(stream, SAMPLE_RATE))) < 2000
