"""Test cut-off recordings: readable samples are yielded, then an error is raised."""

import io
from collections.abc import Callable

import av
import numpy as np
import pytest

from espnet_mlma.audio import (
    SAMPLE_RATE,
    DamagedAudio,
    UntilDamage,
    audio_blocks,
    probe,
    read_audio,
)

SECONDS = 10.0
CASES = [
    ("WAV", {}),
    ("WAV", {"subtype": "IMA_ADPCM"}),
    ("RF64", {}),
    ("W64", {}),
    ("AIFF", {}),
    ("AU", {}),
    ("CAF", {}),
    ("NIST", {}),
    ("FLAC", {}),
    ("MP3", {}),
    ("OGG", {"subtype": "VORBIS"}),
    ("OGG", {"subtype": "OPUS"}),
]
FFMPEG_CASES = [
    ("webm", "libopus", 48000, {}),
    ("matroska", "pcm_s16le", 16000, {}),
    ("mp4", "aac", 48000, {"movflags": "faststart"}),
    ("mp4", "aac", 48000, {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
    ("avi", "pcm_s16le", 16000, {}),
    ("ogg", "flac", 16000, {}),
    ("wav", "pcm_s64le", 16000, {}),
    ("flv", "aac", 44100, {}),
    ("tta", "tta", 16000, {}),
]


def check(data: bytes, share: float, whole: np.ndarray) -> None:
    cut = data[: int(len(data) * share)]
    sound = UntilDamage(audio_blocks(io.BytesIO(cut)))
    found = np.concatenate(list(sound))
    assert isinstance(sound.damage, DamagedAudio)
    assert "cut off or damaged after" in str(sound.damage)
    # The last page of an ogg, up to a second, is lost.
    assert len(found) >= (share * SECONDS - 1.2) * SAMPLE_RATE
    inner = len(found) - 4000
    assert np.allclose(found[:inner], whole[:inner], atol=2e-3)
    for reading in (read_audio, probe):  # stages 1 and 3 drop it: its transcript would not match
        with pytest.raises(DamagedAudio):
            reading(io.BytesIO(cut))


@pytest.mark.parametrize(("kind", "more"), CASES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_readable_samples_of_a_cut_off_file_are_yielded(
    written: Callable, kind: str, more: dict, share: float
) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, round(SECONDS * SAMPLE_RATE))
    data = written(kind, samples, **more)
    check(data, share, read_audio(io.BytesIO(data)))


@pytest.mark.parametrize(("container", "codec", "rate", "options"), FFMPEG_CASES)
def test_readable_samples_of_a_cut_off_file_are_yielded_by_ffmpeg(
    encoded: Callable, container: str, codec: str, rate: int, options: dict, tmp_path
) -> None:
    if "faststart" in options.values():  # FFmpeg needs a real file to move the header
        data = encoded("mp4", "aac", rate, SECONDS)
        (tmp_path / "a.mp4").write_bytes(data)
        with (
            av.open(tmp_path / "a.mp4") as whole,
            av.open(tmp_path / "b.mp4", "w", container_options=options) as copy,
        ):
            stream = copy.add_stream_from_template(whole.streams.audio[0])
            for packet in whole.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = stream
                    copy.mux(packet)
        data = (tmp_path / "b.mp4").read_bytes()
    else:
        data = encoded(container, codec, rate, SECONDS, **options)
    check(data, 0.9, read_audio(io.BytesIO(data)))


def test_samples_after_damage_are_read(encoded: Callable) -> None:
    data = bytearray(encoded("mp4", "aac", 48000, SECONDS))
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(1).bytes(2000)
    sound = UntilDamage(audio_blocks(io.BytesIO(data)))
    assert sum(map(len, sound)) > 0.9 * SECONDS * SAMPLE_RATE
    assert sound.damage is not None


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_damaged_ogg_page_is_an_error(written: Callable, subtype: str) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, round(SECONDS * SAMPLE_RATE))
    data = bytearray(written("OGG", samples, subtype=subtype))
    data[len(data) // 2] ^= 1
    sound = UntilDamage(audio_blocks(io.BytesIO(data)))
    assert sum(map(len, sound)) > 0.7 * SECONDS * SAMPLE_RATE
    assert sound.damage is not None
    with pytest.raises(DamagedAudio):
        probe(io.BytesIO(data))


def test_complete_files_have_no_error(written: Callable, encoded: Callable) -> None:
    whole = [written(kind, **more) for kind, more in CASES]
    whole += [encoded(*case[:3]) for case in FFMPEG_CASES]
    for data in whole:
        assert len(read_audio(io.BytesIO(data))) >= 2 * SAMPLE_RATE - 10
        assert probe(io.BytesIO(data)).seconds == pytest.approx(2.0, abs=0.1)


def test_nan_after_good_audio_is_damage(written: Callable) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 60 * SAMPLE_RATE)
    samples[50 * SAMPLE_RATE] = np.nan
    sound = UntilDamage(audio_blocks(io.BytesIO(written("WAV", samples, subtype="FLOAT"))))
    assert sum(map(len, sound)) == 30 * SAMPLE_RATE
    assert "NaN or Inf" in str(sound.damage)
