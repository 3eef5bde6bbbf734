"""Test files whose headers are wrong about their length."""

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from espnet_mlma.audio import SAMPLE_RATE, audio_blocks, duration_of, probe, read_audio
from espnet_mlma.errors import MlmaError


def seconds_of(data: bytes) -> float:
    """Measure the seconds of audio that are read; `probe` must agree."""
    samples = sum(map(len, audio_blocks(io.BytesIO(data))))
    assert len(read_audio(io.BytesIO(data))) == samples
    assert probe(io.BytesIO(data)).seconds == pytest.approx(samples / SAMPLE_RATE, abs=0.05)
    return samples / SAMPLE_RATE


def put(data: bytes, at: int, value: int, size: int = 4, order: str = "little") -> bytes:
    """Replace a number in the data."""
    number = (value % 256**size).to_bytes(size, order)
    return data[:at] + number + data[at + size :]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("MP3", {}),
        ("MP3", {"bitrate_mode": "VARIABLE"}),
        ("OGG", {"subtype": "VORBIS"}),
        ("OGG", {"subtype": "OPUS"}),
        ("FLAC", {}),
        ("WAV", {}),
        ("WAVEX", {"subtype": "PCM_24"}),
        ("RF64", {}),
        ("W64", {}),
        ("AIFF", {}),
        ("AU", {}),
        ("CAF", {}),
    ],
)
def test_joined_files_are_read_to_the_end(written: Callable, kind: str, more: dict) -> None:
    rng = np.random.default_rng(0)
    first = written(kind, rng.normal(0, 0.1, 20000), **more)
    # Another rate and number of channels.
    second = written(kind, rng.normal(0, 0.1, (48000, 2)), 48000, **more)
    alone = [read_audio(io.BytesIO(data)) for data in (first, second)]
    for order in ((0, 1), (1, 0), (0, 0, 0)):
        data = b"".join((first, second)[i] for i in order)
        assert seconds_of(data if kind != "FLAC" or len(order) < 3 else first) > 1
        whole = read_audio(io.BytesIO(data))
        expected = np.concatenate([alone[i] for i in order])
        assert len(whole) == len(expected)
        assert np.abs(whole - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp4", "aac", 48000),
        ("mov", "alac", 44100),
        ("webm", "libopus", 48000),
        ("matroska", "pcm_s16le", 16000),
        ("adts", "aac", 44100),
        ("mp3", "libmp3lame", 44100),
        ("ogg", "flac", 16000),
        ("flv", "aac", 44100),
        ("tta", "tta", 16000),
        ("avi", "mp3", 44100),
        ("ac3", "ac3", 48000),
    ],
)
def test_joined_files_are_read_by_ffmpeg(
    encoded: Callable, container: str, codec: str, rate: int
) -> None:
    one = encoded(container, codec, rate)
    assert seconds_of(one + one) == pytest.approx(2 * seconds_of(one), abs=0.1)


@pytest.mark.parametrize("between", [b"TAG" + bytes(125), b"ID3\4\0\0\0\0\2\0" + bytes(256)])
def test_tags_between_joined_mp3_files_are_skipped(written: Callable, between: bytes) -> None:
    one = written("MP3")
    assert seconds_of(one + between + one) == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, None])
def test_frames_of_an_mp3_are_counted(written: Callable, factor: float | None) -> None:
    data = written("MP3", bitrate_mode="VARIABLE")
    at = max(data.find(b"Xing"), data.find(b"Info"))
    if factor is None:  # without the frame that declares the number of frames
        start = data.find(b"\xff", at)
        assert seconds_of(data[start:]) == pytest.approx(2.0, abs=0.1)
        return
    declared = int.from_bytes(data[at + 8 : at + 12], "big")
    changed = put(data, at + 8, round(declared * factor), order="big")
    assert seconds_of(changed) == pytest.approx(2.0, abs=0.1)
    assert duration_of(io.BytesIO(changed)) == pytest.approx(2.0, abs=0.1)


def test_length_without_a_xing_header_is_right_if_the_bitrate_varies(written: Callable) -> None:
    rng = np.random.default_rng(0)
    parts = np.zeros(8 * SAMPLE_RATE), rng.normal(0, 0.1, 8 * SAMPLE_RATE)
    for order in (parts, parts[::-1]):
        data = written("MP3", np.concatenate(order), bitrate_mode="VARIABLE", compression_level=0.5)
        bare = data[data.find(b"\xff", data.find(b"Xing")) :]
        assert seconds_of(bare) == pytest.approx(16.0, abs=0.2)


@pytest.mark.parametrize(
    ("kind", "name", "offset", "size", "order"),
    [
        ("WAV", b"data", 4, 4, "little"),
        ("WAVEX", b"data", 4, 4, "little"),
        ("RF64", b"ds64", 16, 8, "little"),
        ("W64", b"data", 16, 8, "little"),
        ("AIFF", b"SSND", 4, 4, "big"),
        ("AU", b".snd", 8, 4, "big"),
        ("CAF", b"data", 4, 8, "big"),
    ],
)
def test_files_of_killed_recorders_are_read_to_the_end(
    written: Callable, kind: str, name: bytes, offset: int, size: int, order: str
) -> None:
    data = written(kind)
    at = data.index(name) + offset
    declared = int.from_bytes(data[at : at + size], order)
    for value in (0, -1, declared // 2):
        assert seconds_of(put(data, at, value, size, order)) == pytest.approx(2.0, abs=0.01)
    with_head = put(data, 4, 0)
    if kind in ("WAV", "WAVEX"):
        assert seconds_of(put(with_head, at, 0)) == pytest.approx(2.0, abs=0.01)


def test_chunks_after_the_samples_are_not_read_as_samples(written: Callable) -> None:
    data = written("WAV")
    chunk = b"LIST" + (20).to_bytes(4, "little") + b"INFOIART" + b"\x08\0\0\0abcdefgh"
    assert seconds_of(data + chunk) == 2.0
    assert seconds_of(data + chunk + data) == 4.0
    empty = put(data[:44], 40, 0)
    for reading in (read_audio, probe):
        with pytest.raises(MlmaError, match="has no samples"):
            reading(io.BytesIO(empty + chunk))


@pytest.mark.parametrize("total", [0, 8000, 16000])
def test_a_flac_is_read_beyond_its_declared_length(written: Callable, total: int) -> None:
    data = written("FLAC")
    assert seconds_of(put(data, 22, total, order="big")) == 2.0


def test_a_span_equals_the_samples_of_the_whole_file(written: Callable, encoded: Callable) -> None:
    joined = written("OGG") + written("OGG")
    files = [written("MP3"), written("FLAC"), joined, encoded("mp4", "aac", 16000)]
    for data in files:
        whole = read_audio(io.BytesIO(data))
        span = read_audio(io.BytesIO(data), 0.5, 1.5)
        assert np.abs(span - whole[8000:24000]).max() < 1e-5
        assert len(read_audio(io.BytesIO(data), 1.5)) == len(whole) - 24000
    span = read_audio(io.BytesIO(joined), 1.5, 2.5)
    assert np.abs(span - read_audio(io.BytesIO(joined))[24000:40000]).max() < 1e-5


def huge(written: Callable) -> dict[str, bytes]:
    """Make headers that declare about 2^40 samples, or an impossible rate."""
    mp3, wav = written("MP3"), written("WAV")
    at = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    found = {f"{rate} Hz": put(wav, 24, rate) for rate in (0, 1, 10, 10**9, 2**32 - 1)}
    found["Xing"] = put(mp3, at, 0x7F000000, order="big")
    rf64, caf = written("RF64"), written("CAF")
    found["RF64"] = put(rf64, rf64.index(b"ds64") + 16, 2**40, 8)
    found["CAF"] = put(caf, caf.index(b"data") + 4, 2**40, 8, "big")
    for subtype in ("VORBIS", "OPUS"):
        found[subtype] = with_last_granule(written("OGG", subtype=subtype), 2**40)
    return found


def with_last_granule(ogg: bytes, samples: int) -> bytes:
    """Make an Ogg file whose last page declares another length, with a valid checksum."""
    at = ogg.rindex(b"OggS")
    page = bytearray(put(put(ogg, at + 6, samples, 8), at + 22, 0)[at:])
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return ogg[:at] + put(bytes(page), 22, crc)


def test_too_large_declared_lengths_are_errors_in_bounded_memory(written: Callable) -> None:
    for name, data in huge(written).items():
        for reading in (
            lambda data: sum(map(len, audio_blocks(io.BytesIO(data)))),
            lambda data: read_audio(io.BytesIO(data)),
            lambda data: probe(io.BytesIO(data)),
        ):
            tracemalloc.start()
            try:
                with pytest.raises(MlmaError) as caught:
                    reading(data)
                assert tracemalloc.get_traced_memory()[1] < 2e7, name
            finally:
                tracemalloc.stop()
            assert "\n" not in str(caught.value)


def test_a_thousand_channels_are_read_in_bounded_memory(written: Callable) -> None:
    samples = np.zeros((24000, 1024), np.int16)
    data = io.BytesIO(written("WAV", samples, 24000, subtype="PCM_U8"))
    tracemalloc.start()
    try:
        assert sum(map(len, audio_blocks(data))) == SAMPLE_RATE
        assert tracemalloc.get_traced_memory()[1] < 6e7  # a second of them is 98 MB as floats
    finally:
        tracemalloc.stop()


def test_probing_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "clip.wav")
    with pytest.raises(MlmaError, match=r"clip\.wav: not a file"):
        probe(tmp_path / "clip.wav")
