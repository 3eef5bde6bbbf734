import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.corpora.audio import (
    SAMPLE_RATE,
    AudioInfo,
    iter_archive,
    parse_scp_value,
    probe,
    read_audio,
    scp_value,
)
from espnet_mlma.corpora.probing import probe_all
from espnet_mlma.corpora.utterance import ArchiveMember, AudioFile
from espnet_mlma.errors import MlmaError


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_every_format_gives_the_same_sound_at_16_khz(
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


def test_real_mp3_clips_are_whole(shared_corpora: Path) -> None:
    clips = sorted(shared_corpora.glob("commonvoice/*/*/clips/*.mp3"))[::10]
    for clip in clips:
        assert len(read_audio(clip)) / SAMPLE_RATE == pytest.approx(probe(clip).seconds, abs=0.1)


def test_a_span_is_cut_where_it_says(tmp_path: Path) -> None:
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


def test_a_cut_off_flac_is_seen_from_its_end(tmp_path: Path) -> None:
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


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    empty, junk, silent = tmp_path / "empty.mp3", tmp_path / "junk.flac", tmp_path / "no.wav"
    empty.touch()
    junk.write_bytes(b"not a sound file" * 100)
    soundfile.write(silent, np.zeros(0), SAMPLE_RATE)
    for path, why in (
        (empty, "empty file"),
        (junk, "not readable as sound"),
        (silent, "holds no samples"),
        (tmp_path / "gone.wav", "no such file"),
    ):
        with pytest.raises(MlmaError, match=rf"{path.name}: {why}"):
            probe(path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A tar.gz with two sound files and an empty one."""
    path = tmp_path / "dev.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, seconds in (("dev/b.wav", 0.5), ("dev/a.wav", 0.25), ("dev/empty.wav", 0.0)):
            data = io.BytesIO()
            if seconds:
                noise = np.random.default_rng(1).normal(0, 0.1, int(seconds * SAMPLE_RATE))
                soundfile.write(data, noise, SAMPLE_RATE, format="wav")
            entry = tarfile.TarInfo(name)
            entry.size = data.tell()
            data.seek(0)
            tar.addfile(entry, data)
    return path


def test_an_archive_is_read_in_one_pass(archive: Path) -> None:
    sounds = iter_archive(archive, {"dev/a.wav", "dev/b.wav", "dev/c.wav"})
    lengths = [(name, len(read_audio(data))) for name, data in sounds]
    assert lengths == [("dev/b.wav", 8000), ("dev/a.wav", 4000)]


def test_probing_an_archive_says_what_each_member_is(archive: Path) -> None:
    a, empty, gone = (ArchiveMember(archive, f"dev/{name}.wav") for name in ("a", "empty", "c"))
    found = probe_all([a, empty, gone], nj=2, label="test")
    assert found[a] == AudioInfo(SAMPLE_RATE, 4000)
    assert "not readable as sound" in str(found[empty])
    assert "not in the archive" in str(found[gone])


def test_a_cut_off_archive_is_an_error(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:9000])
    with pytest.raises(MlmaError, match=r"dev\.tar\.gz: not a whole tar archive"):
        list(iter_archive(archive, {"dev/a.wav"}))


def test_a_damaged_header_ends_no_archive_silently(archive: Path, tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(archive.read_bytes()))
    content[content.index(b"dev/a.wav")] ^= 1
    plain = tmp_path / "dev.tar"
    plain.write_bytes(content)
    with pytest.raises(MlmaError, match=r"dev\.tar: not a whole tar archive \(damaged at byte"):
        list(iter_archive(plain, {"dev/a.wav", "dev/b.wav"}))


def test_the_checksum_of_an_archive_is_looked_at(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1
    archive.write_bytes(content)
    with pytest.raises(MlmaError, match=r"dev\.tar\.gz: not a whole tar archive \(CRC check"):
        list(iter_archive(archive, {"dev/a.wav"}))


def test_wav_scp_values_come_back(tmp_path: Path) -> None:
    audios = [
        AudioFile(tmp_path / "with space.wav"),
        ArchiveMember(tmp_path / "dev.tar.gz", "dev/a.wav"),
    ]
    for audio in audios:
        assert parse_scp_value(scp_value(audio)) == audio


def test_a_foreign_pipe_is_refused() -> None:
    with pytest.raises(MlmaError, match="a pipe that this recipe does not write"):
        parse_scp_value("sox a.wav -t wav - |")


def test_a_quote_in_an_archive_name_is_refused() -> None:
    with pytest.raises(MlmaError, match="rename it"):
        scp_value(ArchiveMember(Path("/d/it's.tar.gz"), "a.wav"))
