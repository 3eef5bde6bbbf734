from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_mlma.audio import SAMPLE_RATE, AudioInfo
from espnet_mlma.audio.archives import AudioFile
from espnet_mlma.data.checks import HeldOut
from espnet_mlma.data.probing import probe_all
from espnet_mlma.data.utterance import Utterance, speaker_id
from espnet_mlma.data.writer import write_set
from espnet_mlma.errors import MlmaError


@pytest.fixture
def make_utterance(tmp_path: Path):
    """Return a function that makes an utterance of noise."""

    def make(
        name: str, text: str = "hello there", seconds: float = 2.0, speaker: str = "7", **span
    ) -> Utterance:
        path = tmp_path / "audio" / f"{span.get('recording', name)}.wav"
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE))
        soundfile.write(path, noise, SAMPLE_RATE)
        speaker = speaker_id("cv", "en", speaker)
        return Utterance(f"{speaker}-{name}", AudioFile(path), text, speaker, "en", **span)

    return make


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def dropped(folder: Path) -> dict[str, str]:
    header, *rows = lines(folder / "dropped.tsv")
    assert header == "id\treason\tdetail"
    return {row.split("\t")[0].rpartition("-")[2]: row.split("\t")[1] for row in rows}


def test_a_set_of_whole_files(tmp_path: Path, make_utterance) -> None:
    utterances = [
        make_utterance("b", "Hello, THERE!"),
        make_utterance("a", speaker="70"),
        make_utterance("c", speaker="7"),
    ]
    report = write_set(tmp_path / "data/x", utterances, nj=2)
    folder = tmp_path / "data/x"
    assert sorted(path.name for path in folder.iterdir()) == [
        "dropped.tsv", "spk2utt", "text", "utt2category", "utt2dataset", "utt2lang", "utt2spk",
        "wav.scp",
    ]  # fmt: skip
    assert lines(folder / "text") == [
        "cv_en_7-b hello there",
        "cv_en_7-c hello there",
        "cv_en_70-a hello there",
    ]
    assert lines(folder / "spk2utt") == ["cv_en_7 cv_en_7-b cv_en_7-c", "cv_en_70 cv_en_70-a"]
    assert lines(folder / "utt2category")[0] == "cv_en_7-b cv"
    assert lines(folder / "utt2dataset") == lines(folder / "utt2lang")
    assert lines(folder / "wav.scp")[0] == f"cv_en_7-b {tmp_path}/audio/b.wav"
    assert report.kept == 3 and report.seconds == {("en", "cv"): pytest.approx(6.0)}


def test_segments_are_written_if_any_utterance_is_a_span(tmp_path: Path, make_utterance) -> None:
    utterances = [
        make_utterance("whole", seconds=1.5),
        make_utterance("r-0", start=0.25, end=1.0, recording="r", seconds=3.0),
        make_utterance("r-1", start=1.0, end=3.05, recording="r", seconds=3.0),
    ]
    report = write_set(tmp_path / "x", utterances, nj=1)
    assert lines(tmp_path / "x/segments") == [
        "cv_en_7-r-0 r 0.2500 1.0000",
        "cv_en_7-r-1 r 1.0000 3.0000",  # a span may exceed the recording slightly
        "cv_en_7-whole cv_en_7-whole 0.0000 -1",
    ]
    assert [line.split()[0] for line in lines(tmp_path / "x/wav.scp")] == ["cv_en_7-whole", "r"]
    assert report.seconds["en", "cv"] == pytest.approx(0.75 + 2.0 + 1.5)


def bad_ones(make_utterance) -> list[Utterance]:
    empty = make_utterance("empty_file")
    empty.audio.path.write_bytes(b"")
    return [
        empty,
        make_utterance("past_end", seconds=2.0, start=1.0, end=2.5, recording="q"),
        make_utterance("punctuation", "?!... – «»"),
        make_utterance("number", "in 1984"),
        make_utterance("foreign", "Łódź"),
        make_utterance("short", "a", seconds=0.2),  # stage 4 looks at lengths
        make_utterance("long", seconds=31.0),
    ]


def test_drops_of_training_data_are_listed_by_reason(tmp_path: Path, make_utterance) -> None:
    report = write_set(tmp_path / "x", bad_ones(make_utterance), nj=2)
    assert dropped(tmp_path / "x") == {
        "empty_file": "broken_audio",
        "past_end": "broken_audio",
        "punctuation": "empty_text",
        "number": "digits",
        "foreign": "out_of_alphabet",
    }
    assert report.kept == 2 and report.dropped["broken_audio"] == 2
    assert "broken_audio 2, digits 1, empty_text 1" in str(report)


def test_a_test_set_keeps_all_that_can_be_scored(tmp_path: Path, make_utterance) -> None:
    report = write_set(tmp_path / "x", bad_ones(make_utterance), nj=2, scored=True)
    assert set(dropped(tmp_path / "x")) == {"empty_file", "past_end", "punctuation"}
    assert report.kept == 4
    assert "cv_en_7-number in 1984" in lines(tmp_path / "x/text")


def test_training_has_no_test_clip_and_no_test_speaker(tmp_path: Path, make_utterance) -> None:
    held_out = HeldOut()
    held_out.add(make_utterance("t", speaker="test"))
    training = [
        make_utterance("t", speaker="test"),
        make_utterance("u", speaker="test"),
        make_utterance("v", speaker="other"),
    ]
    report = write_set(tmp_path / "x", training, nj=1, held_out=held_out)
    assert dropped(tmp_path / "x") == {"t": "id_in_test", "u": "speaker_in_test"}
    assert report.kept == 1


def test_speakers_shared_with_training_are_counted(tmp_path: Path, make_utterance) -> None:
    spoken = [("a", "anna"), ("b", "anna"), ("c", "bert")]
    test = write_set(
        tmp_path / "test", [make_utterance(id_, speaker=who) for id_, who in spoken], nj=1
    )
    train = write_set(tmp_path / "train", [make_utterance("d", speaker="anna")], nj=1)
    other = write_set(tmp_path / "other", [make_utterance("e", speaker="carla")], nj=1)
    overlap = test.speaker_overlap(train)
    assert "1 of 2 speakers" in overlap and "2 of 3 utterances" in overlap
    assert test.speaker_overlap(other) is None


def test_a_duplicate_id_is_an_error_with_both_files(tmp_path: Path, make_utterance) -> None:
    first, second = make_utterance("a"), make_utterance("b")
    double = Utterance(first.id, second.audio, "hello", first.speaker, "en")
    with pytest.raises(MlmaError, match=r"cv_en_7-a: .*/a\.wav and .*/b\.wav"):
        write_set(tmp_path / "x", [first, double], nj=1)
    assert not (tmp_path / "x").exists()


def test_a_set_that_would_be_empty_is_an_error(tmp_path: Path, make_utterance) -> None:
    with pytest.raises(MlmaError, match="x: nothing left, dropped empty_text 1; .*cv_en_7-a"):
        write_set(tmp_path / "x", [make_utterance("a", "...")], nj=1)
    with pytest.raises(MlmaError, match="x: its corpora have no utterances"):
        write_set(tmp_path / "x", [], nj=1)
    assert not (tmp_path / "x").exists()


def test_a_new_set_replaces_the_old_one(tmp_path: Path, make_utterance) -> None:
    write_set(tmp_path / "x", [make_utterance("r", start=0.0, end=1.0, recording="r")], nj=1)
    write_set(tmp_path / "x", [make_utterance("a")], nj=1)
    assert not (tmp_path / "x/segments").exists()
    assert lines(tmp_path / "x/text") == ["cv_en_7-a hello there"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_of_many_spans_is_probed_once(tmp_path: Path, make_utterance) -> None:
    utterance = make_utterance("a")
    found = probe_all([utterance.audio, AudioFile(utterance.audio.path)], nj=1, label="x")
    assert found == {utterance.audio: AudioInfo(SAMPLE_RATE, 2 * SAMPLE_RATE)}
