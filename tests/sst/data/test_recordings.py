"""Tests of joining utterances to recordings."""

from pathlib import Path

import pytest

from espnet_mlma.audio import AudioInfo
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.corpora import commonvoice, librispeech, voxpopuli
from espnet_mlma.data.probing import probe_all
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data.recordings import join_utterances


def utterance(id_, audio, text="HELLO", **span):
    return Utterance(id_, AudioFile(Path(audio)), text, id_.partition("-")[0], "en", **span)


def infos(utterances, seconds=2.0):
    return {u.audio: AudioInfo(16000, round(16000 * seconds)) for u in utterances}


def test_utterances_of_a_librispeech_chapter_follow_each_other():
    rows = [utterance(f"ls_en_1-2-000{i}", f"/x/{i}.flac") for i in (1, 0, 2)]
    rows.append(utterance("ls_en_1-3-0000", "/x/other.flac"))
    found = join_utterances(rows, infos(rows))
    assert [s.recording for s in found] == ["ls_en_1-2"] * 3 + ["ls_en_1-3"]
    assert [(s.start, s.end, s.offset) for s in found] == [
        (0, 2, 0),
        (2, 4, 0),
        (4, 6, 0),
        (0, 2, 0),
    ]
    assert found[0].audio == "/x/0.flac"
    assert found[0].text == "hello"


def test_voxpopuli_session_keeps_its_times():
    rows = [
        utterance(f"vp_en_{i}-s_{i}", "/x/s.ogg", start=s, end=s + 1, recording="vp_en_s")
        for i, s in enumerate((5.0, 0.5, 2.0))
    ]
    found = join_utterances(rows, infos(rows, 9.0))
    assert [(s.start, s.end, s.offset) for s in found] == [(0.5, 1.5, 0.5), (2, 3, 2), (5, 6, 5)]


def test_common_voice_utterance_is_its_own_recording():
    rows = [utterance(f"cv_en_a-{i}", f"/x/{i}.mp3", "NATO, hello.") for i in (1, 2)]
    found = join_utterances(rows, infos(rows))
    assert [s.recording for s in found] == [s.id for s in found]
    assert found[0].text == "NATO, hello."


def test_broken_audio_and_empty_text_are_kept_as_dropped():
    rows = [utterance(f"ls_en_1-2-000{i}", f"/x/{i}.flac") for i in range(3)]
    rows.append(utterance("ls_en_1-2-0003", "/x/3.flac", "..."))
    found = join_utterances(rows, infos(rows) | {rows[1].audio: MlmaError("cut off")})
    assert [s.dropped for s in found] == [None, "broken_audio", None, "empty_text"]
    assert [(s.start, s.end) for s in found] == [(0, 2), (2, 2), (2, 4), (4, 6)]


def test_duplicate_ids_and_archives_are_refused():
    rows = [utterance("cv_en_a-1", "/x/1.mp3")] * 2
    with pytest.raises(MlmaError, match="two utterances have this id"):
        join_utterances(rows, infos(rows))
    member = AudioFile(Path("x.tar"), "a.wav")
    with pytest.raises(MlmaError, match="in an archive"):
        join_utterances([Utterance("a", member, "x", "s", "en")], {member: AudioInfo(16000, 16000)})


def test_real_corpora(shared_corpora):
    rows = [
        *librispeech.prepare(shared_corpora / "LibriSpeech", "en", "test-clean"),
        *commonvoice.prepare(shared_corpora / "commonvoice", "en", "dev"),
        *voxpopuli.prepare(shared_corpora / "voxpopuli", "en", "dev"),
    ]
    found = join_utterances(rows, probe_all({u.audio for u in rows}, 4, "test"))
    assert sorted(s.id for s in found) == sorted(u.id for u in rows)
    assert all(s.end > s.start for s in found if not s.dropped)
    sessions = [s for s in found if s.id.startswith("vp_")]
    assert all(s.offset == s.start for s in sessions)
    assert len({s.recording for s in sessions}) < len(sessions)
