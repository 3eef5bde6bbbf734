"""Test stages 1 and 3 with odd files, and with damaged files, which are dropped."""

import av
import numpy as np
import pytest
import soundfile

from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data import tables
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set


@pytest.fixture
def clips(tmp_path) -> dict[str, bytes]:
    """Make clips of two seconds, by what is odd about them."""
    samples = np.random.default_rng(0).normal(0, 0.1, 32000)
    for suffix in ("wav", "mp3", "ogg", "flac"):
        soundfile.write(tmp_path / f"a.{suffix}", samples, 16000)
    soundfile.write(tmp_path / "b.wav", np.stack([samples, -samples], 1), 16000)
    with av.open(tmp_path / "a.m4a", "w") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        pcm = (samples * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    wav, mp3, ogg, flac, m4a = (
        (tmp_path / f"a.{suffix}").read_bytes() for suffix in ("wav", "mp3", "ogg", "flac", "m4a")
    )
    xing = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    return {
        "m4a": m4a,
        "joined": ogg + ogg,
        "killed": wav[:40] + bytes(4) + wav[44:],
        "inverted": (tmp_path / "b.wav").read_bytes(),
        "cut_wav": wav[:50000],
        "cut_flac": flac[: len(flac) // 2],
        "cut_ogg": ogg[: len(ogg) // 2],
        "slow": wav[:24] + (1).to_bytes(4, "little") + wav[28:],
        "endless": mp3[:xing] + b"\x7f" + mp3[xing + 1 :],
    }


def test_stages_1_and_3_read_odd_files_and_drop_damaged_ones(clips, tmp_path, capsys) -> None:
    utterances = []
    for name, data in clips.items():
        (tmp_path / name).write_bytes(data)
        speaker = f"mini_it_{name}"
        sound = AudioFile(tmp_path / name)
        utterances.append(Utterance(f"{speaker}-1", sound, "buona sera", speaker, "it"))
    data, dump = tmp_path / "data", tmp_path / "dump"
    write_set(data, utterances, nj=1)
    dropped = (data / "dropped.tsv").read_text(encoding="utf-8")
    for name in ("cut_wav", "cut_flac", "cut_ogg", "slow", "endless"):
        assert f"mini_it_{name}-1\tbroken_audio\t" in dropped
    capsys.readouterr()
    assert format_folder(data, dump, nj=1) == {"kept": 4}
    lengths = tables.read(dump / "utt2num_samples", "")
    assert {key.split("_")[-1]: int(length) // 16000 for key, length in lengths.items()} == {
        "inverted-1": 2,
        "joined-1": 4,
        "killed-1": 2,
        "m4a-1": 2,
    }
    found = [line for line in capsys.readouterr().out.splitlines() if "out of phase" in line]
    assert len(found) == 1 and "1 warning" in found[0]


def test_stage_3_drops_files_damaged_since_stage_1(clips, tmp_path) -> None:
    sound, data = tmp_path / "clip", tmp_path / "data"
    sound.write_bytes(clips["joined"])
    (tmp_path / "other").write_bytes(clips["m4a"])
    utterances = [
        Utterance(f"mini_it_{name}-1", AudioFile(path), "buona sera", f"mini_it_{name}", "it")
        for name, path in (("clip", sound), ("other", tmp_path / "other"))
    ]
    write_set(data, utterances, nj=1)
    for name in ("cut_wav", "cut_ogg", "slow", "endless"):
        sound.write_bytes(clips[name])
        counts = format_folder(data, tmp_path / "dump", nj=1)
        assert counts == {"kept": 1, "broken_audio": 1}
