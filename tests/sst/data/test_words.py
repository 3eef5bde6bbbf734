"""Tests of word times from a CTC model and from TextGrid files."""

import os
import shutil
from argparse import ArgumentParser

import numpy as np
import pytest
import soundfile
import torch

import espnet_mlma
from espnet_mlma.decode import formats
from espnet_mlma.decode.transcript import Word
from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.data import words
from espnet_mlma.sst.data.records import Sentence
from espnet_mlma.sst.data.shards import read_sentences, write_shard
from espnet_mlma.sst.data.textgrid import read_tiers, read_words
from espnet_mlma.sst.data.words import lengthen, model_timer, textgrid_timer

RATE = 16000
LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1
            text = "say 3 ""times"""
        intervals [3]:
            xmin = 1
            xmax = 1.25
            text = "sil"
        intervals [4]:
            xmin = 1.25
            xmax = 2.5
            text = "café"
    item [2]:
        class = "TextTier"
        name = "notes"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 1
            mark = "here"
'''
SHORT = (
    '"ooTextFile"\n"TextGrid"\n0\n2.5\n<exists>\n1\n"IntervalTier"\n"anna - words"\n0\n2.5\n2\n'
    '0\n1\n"good"\n1\n2.5\n"day"\n'
)


def sentence(audio="a.flac", text="bad cab", offset=0.0, start=10.0, seconds=2.0, id_="r-0"):
    return Sentence(id_, "r", str(audio), offset, start, start + seconds, "s", text)


@pytest.fixture(scope="module")
def recogniser(experiment):
    return espnet_mlma.load(experiment, device="cpu")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "noise.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 6 * RATE), RATE)
    return path


def test_lengthen_stops_at_the_next_word():
    found = [Word("a", 0.0, 0.5, 1.0), Word("b", 0.51, 0.9, 1.0), Word("c", 1.5, 1.6, 1.0)]
    assert [word.end for word in lengthen(found, 0.1)] == pytest.approx([0.51, 1.0, 1.7])
    assert lengthen(found, 0.0) == found


def test_model_times_are_relative_to_the_recording(recogniser, audio):
    one = sentence(audio, "Bad cab, a DIG", offset=2.0, start=12.0, seconds=3.0)
    found = model_timer(recogniser, 0.1, -100.0)(one)
    assert [word for word, _, _ in found.words] == ["Bad", "cab,", "a", "DIG"]
    times = [time for _, start, end in found.words for time in (start, end)]
    assert times == sorted(times)
    assert times[0] >= 12.0 and times[-1] <= 15.0
    # Aligning the samples alone gives the same times, 12 s earlier.
    samples, _ = soundfile.read(audio, dtype="float32")
    alone = lengthen(recogniser.align(samples[2 * RATE : 5 * RATE], one.text).words, 0.1)
    assert times[::2] == pytest.approx([12.0 + word.start for word in alone])
    assert found.score < 0


def test_sentences_without_times_are_dropped_by_reason(recogniser, audio, tmp_path):
    timed = model_timer(recogniser, 0.1, -100.0)
    assert timed(sentence(audio, "bad xylophone")).dropped == "text_not_alignable"
    assert timed(sentence(audio, "bad cab " * 200)).dropped == "text_not_alignable"
    assert timed(sentence(tmp_path / "none.flac")).dropped == "broken_audio"
    assert timed(sentence(audio, offset=60.0)).dropped == "broken_audio"
    strict = model_timer(recogniser, 0.1, -0.001)(sentence(audio))
    assert strict.dropped == "low_score" and strict.score < -0.001 and strict.words is None


def of_model(model, rows, folder):
    """Write sentences to a folder and return the arguments of the stage."""
    write_shard(folder / "in.jsonl", rows, "recordings", "key", {}, 6.0)
    parser = ArgumentParser()
    words.add_arguments(parser)
    options = ["--sentences", "in.jsonl", "--out", "out.jsonl"]
    options = [str(folder / o) if o.endswith("jsonl") else o for o in options]
    return parser.parse_args([*options, "--model", str(model), "--least_score", "-100"])


def test_stage_counts_dropped_sentences_and_can_be_repeated(experiment, audio, tmp_path, capsys):
    rows = [sentence(audio, text, id_=f"r-{i}") for i, text in enumerate(("bad", "xyz", "cab"))]
    args = of_model(experiment, rows, tmp_path)
    words.run(args)
    words.run(args)
    assert "text_not_alignable 1" in capsys.readouterr().out
    found = read_sentences(tmp_path / "out.jsonl")
    assert [s.dropped for s in found] == [None, "text_not_alignable", None]
    assert [s.id for s in found] == [s.id for s in rows]


def test_retrained_recogniser_repeats_the_stage(experiment, audio, tmp_path):
    folder = shutil.copytree(experiment, tmp_path / "asr")
    args = of_model(folder, [sentence(audio)], tmp_path)
    words.run(args)
    [before] = read_sentences(tmp_path / "out.jsonl")
    written = os.stat(tmp_path / "out.jsonl").st_mtime_ns
    words.run(args)
    assert os.stat(tmp_path / "out.jsonl").st_mtime_ns == written
    checkpoint = folder / "valid.cer_ctc.ave.pth"
    state = torch.load(checkpoint)
    state["ctc.ctc_lo.weight"] *= 0.5
    torch.save(state, checkpoint)
    words.run(args)
    [after] = read_sentences(tmp_path / "out.jsonl")
    assert after.score != before.score


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_long_textgrid(tmp_path, encoding):
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG, encoding=encoding)
    assert read_words(path) == [('say 3 "times"', 0.5, 1.0), ("café", 1.25, 2.5)]


def test_short_textgrid_with_a_speaker(tmp_path):
    path = tmp_path / "a.TextGrid"
    path.write_text(SHORT, encoding="utf-8")
    assert read_words(path) == [("good", 0.0, 1.0), ("day", 1.0, 2.5)]


def test_damaged_textgrid_or_missing_tier_is_refused(tmp_path):
    path = tmp_path / "a.TextGrid"
    for content, expected in (
        (LONG[:600], "not a whole TextGrid"),
        ("{}", "not a whole TextGrid"),
        (LONG.replace('"words"', '"wörter"'), r"0 tiers 'words' \(found: wörter\)"),
        (LONG.replace("xmax = 1\n", "xmax = 0.1\n"), "an interval from 0.5 to 0.1"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(MlmaError, match=expected):
            read_words(path)


@pytest.mark.parametrize("characters", [150, 250, 340, 440, 530])
def test_truncated_textgrid_is_refused(tmp_path, characters):
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG[:characters], encoding="utf-8")
    with pytest.raises(MlmaError, match="not a whole TextGrid"):
        read_words(path)


def test_our_own_textgrids_are_read(recogniser, audio, tmp_path):
    found = recogniser.align(audio, "bad cab a dig")
    text = formats.FORMATS["textgrid"].render(found, formats.Source("a", "m"))
    (tmp_path / "a.TextGrid").write_text(text)
    read = read_words(tmp_path / "a.TextGrid")
    assert [word for word, _, _ in read] == ["bad", "cab", "a", "dig"]
    assert [end for *_, end in read] == pytest.approx([w.end for w in found.words], abs=2e-3)
    assert len(read_tiers(tmp_path / "a.TextGrid")) == 2


def test_textgrid_timer_drops_missing_and_unknown_words(tmp_path):
    (tmp_path / "speaker").mkdir()
    (tmp_path / "speaker" / "r-0.TextGrid").write_text(SHORT)
    (tmp_path / "r-1.TextGrid").write_text(SHORT.replace('"day"', '"<unk>"'))
    (tmp_path / "r-2.TextGrid").write_text(SHORT.replace('"day"', '""').replace('"good"', '""'))
    timed = textgrid_timer(tmp_path)
    found = [timed(sentence(id_=f"r-{i}")) for i in range(4)]
    # The second word ends after its sentence.
    assert found[0].words == (("good", 10.0, 11.0), ("day", 11.0, 12.0))
    assert [s.dropped for s in found] == [None, "unknown_words", "no_words", "no_textgrid"]
    with pytest.raises(MlmaError, match=r"no \*.TextGrid"):
        textgrid_timer(tmp_path / "speaker" / "none")
