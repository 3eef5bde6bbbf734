import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.audio import SAMPLE_RATE, AudioInfo, read_audio
from espnet_mlma.audio.archives import (
    AudioFile,
    iter_archive,
    parse_scp_value,
    scp_value,
)
from espnet_mlma.data.probing import probe_all
from espnet_mlma.errors import MlmaError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Make a tar.gz with two audio files and an empty file."""
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


def test_probing_an_archive_finds_lengths_and_errors(archive: Path) -> None:
    a, empty, gone = (AudioFile(archive, f"dev/{name}.wav") for name in ("a", "empty", "c"))
    found = probe_all([a, empty, gone], nj=2, label="test")
    assert found[a] == AudioInfo(SAMPLE_RATE, 4000)
    assert "empty file" in str(found[empty])
    assert "not found in the archive" in str(found[gone])


def test_a_cut_off_archive_is_an_error(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:9000])
    with pytest.raises(MlmaError, match=r"dev\.tar\.gz: not a whole tar archive"):
        list(iter_archive(archive, {"dev/a.wav"}))


def test_a_damaged_header_in_an_archive_is_an_error(archive: Path, tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(archive.read_bytes()))
    content[content.index(b"dev/a.wav")] ^= 1
    plain = tmp_path / "dev.tar"
    plain.write_bytes(content)
    with pytest.raises(MlmaError, match=r"dev\.tar: not a whole tar archive \(damaged at byte"):
        list(iter_archive(plain, {"dev/a.wav", "dev/b.wav"}))


def test_a_wrong_checksum_of_an_archive_is_an_error(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1
    archive.write_bytes(content)
    with pytest.raises(MlmaError, match=r"dev\.tar\.gz: not a whole tar archive \(CRC check"):
        list(iter_archive(archive, {"dev/a.wav"}))


def test_wav_scp_values_round_trip(tmp_path: Path) -> None:
    audios = [
        AudioFile(tmp_path / "with space.wav"),
        AudioFile(tmp_path / "dev.tar.gz", "dev/a.wav"),
    ]
    for audio in audios:
        assert parse_scp_value(scp_value(audio)) == audio


def test_an_unknown_pipe_is_an_error() -> None:
    with pytest.raises(MlmaError, match="such a pipe: sox"):
        parse_scp_value("sox a.wav -t wav - |")


@pytest.mark.parametrize("name", ["it's", "a  b", '"', "$(exit)", "a'b'c", "\\", "'"])
def test_names_in_a_pipe_are_quoted(name: str) -> None:
    member = AudioFile(Path(f"/d/{name}.tar.gz"), f"x/{name}.wav")
    value = scp_value(member)
    assert parse_scp_value(value) == member
    words = subprocess.check_output(["sh", "-c", "printf '%s\n' " + value.removesuffix("|")])
    assert words.decode().splitlines()[2:] == [str(member.path), member.member]


def test_a_named_pipe_as_an_archive_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar.gz")
    with pytest.raises(MlmaError, match=r"a\.tar\.gz: not a file"):
        list(iter_archive(tmp_path / "a.tar.gz", ["x"]))
