from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.audio import SAMPLE_RATE, AudioInfo, probe, read_audio
from espnet_mlma.errors import MlmaError


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_every_format_has_the_same_samples_at_16_khz(
    tmp_path: Path, suffix: str, rate: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(1.0, rate), rate)
    assert probe(path).seconds == pytest.approx(1.0, abs=0.08)
    sound = read_audio(path)
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert len(sound) == pytest.approx(SAMPLE_RATE, abs=0.08 * SAMPLE_RATE)
    middle = sound[4000:12000]
    loudest = np.abs(np.fft.rfft(middle)).argmax() * SAMPLE_RATE / len(middle)
    assert loudest == pytest.approx(440, abs=3)


def test_opus_is_read(shared_corpora: Path) -> None:
    path = next(shared_corpora.glob("mls/*/dev/audio/*/*/*.opus"))
    info = probe(path)
    assert len(read_audio(path)) == pytest.approx(info.seconds * SAMPLE_RATE, abs=2)


def test_real_mp3_clips_are_complete(shared_corpora: Path) -> None:
    clips = sorted(shared_corpora.glob("commonvoice/*/*/clips/*.mp3"))[::10]
    for clip in clips:
        assert len(read_audio(clip)) / SAMPLE_RATE == pytest.approx(probe(clip).seconds, abs=0.1)


def test_a_span_begins_and_ends_at_its_times(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    sound = np.concatenate([np.zeros(8000), np.full(8000, 0.25), np.zeros(8000)])
    soundfile.write(path, sound, SAMPLE_RATE)
    assert np.allclose(read_audio(path, 0.5, 1.0), 0.25, atol=1e-4)
    assert len(read_audio(path, 1.25)) == 4000
    with pytest.raises(MlmaError, match="no samples from 1.6 s"):
        read_audio(path, 1.6, 1.8)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.tile([0.5, -0.25], (100, 1)), SAMPLE_RATE)
    assert np.allclose(read_audio(path), 0.125, atol=1e-4)


def test_a_cut_off_flac_is_detected_at_its_end(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.flac", tmp_path / "cut.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE)
    soundfile.write(whole, noise, SAMPLE_RATE)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    assert probe(whole) == AudioInfo(SAMPLE_RATE, 2 * SAMPLE_RATE)
    with pytest.raises(MlmaError, match=r"cut\.flac: cut off"):
        probe(cut)
    with pytest.raises(MlmaError, match=r"cut\.flac"):
        read_audio(cut)


def test_errors_about_unreadable_files_have_a_reason(tmp_path: Path) -> None:
    empty, junk, silent = tmp_path / "empty.mp3", tmp_path / "junk.flac", tmp_path / "no.wav"
    empty.touch()
    junk.write_bytes(b"not a sound file" * 100)
    soundfile.write(silent, np.zeros(0), SAMPLE_RATE)
    for path, why in (
        (empty, "empty file"),
        (junk, "has no audio"),
        (silent, "has no samples"),
        (tmp_path / "gone.wav", "no such file"),
    ):
        with pytest.raises(MlmaError, match=rf"{path.name}: {why}"):
            probe(path)
