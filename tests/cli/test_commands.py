"""align, info, bench and stream."""

import io
import json
import os
import re
import select
import sys

import numpy as np
import pytest
import soundfile
from praatio import textgrid

from espnet_mlma.cli.stream import Figures, TextPrinter
from espnet_mlma.decode import Word
from espnet_mlma.decode.streaming import StreamUpdate
from espnet_mlma.loading import checkpoint


def test_align_prints_ctm(mlma, experiment, sounds):
    code, out, err = mlma(
        *("align", sounds / "a.flac", "--text", "abc de", "--format", "ctm", "--model", experiment)
    )
    assert (code, err) == (0, "")
    assert [row.split()[4] for row in out.splitlines()] == ["abc", "de"]


def test_align_writes_a_textgrid(mlma, experiment, sounds, tmp_path):
    (tmp_path / "said.txt").write_text("abc\nde\n")
    output = tmp_path / "new" / "a.TextGrid"
    code, out, err = mlma(
        *("align", sounds / "a.flac", "--text-file", tmp_path / "said.txt"),
        *("--model", experiment, "-o", output),
    )
    assert (code, out, err) == (0, f"wrote {output}\n", "")
    words = textgrid.openTextgrid(str(output), includeEmptyIntervals=False).getTier("words")
    assert [interval.label for interval in words.entries] == ["abc", "de"]


def test_align_writes_what_the_name_ends_as(mlma, experiment, sounds, tmp_path):
    aligned = ("align", sounds / "a.flac", "--text", "abc de", "--model", experiment, "-o")
    assert mlma(*aligned, tmp_path / "a.JSON")[0] == 0
    words = json.loads((tmp_path / "a.JSON").read_text())["words"]
    assert [word["text"] for word in words] == ["abc", "de"]
    for options, message in (
        (["a.srt"], "a.srt ends as none of .TextGrid, .ctm, .json; give --format"),
        (["a.json", "--format", "ctm"], "a.json and --format ctm: give one of both"),
    ):
        code, out, err = mlma(*aligned, *options)
        assert (code, out) == (2, "")
        assert message in err


def test_a_sound_or_model_that_is_not_there_is_named(mlma, experiment, sounds, tmp_path):
    gone = tmp_path / "gone"
    aligned = ("align", "--text", "abc", "--model")
    assert mlma(*aligned, experiment, gone)[2] == f"error: {gone}: no such file\n"
    without_model = [
        (*aligned, gone, sounds / "a.flac"),
        ("info", gone),
        ("bench", "--model", gone),
    ]
    for command in without_model:
        assert f"error: {gone}: no such file" in mlma(*command)[2]
    (gone / "exp").mkdir(parents=True)
    (gone / "exp" / "config.yaml").write_text("encoder: conmamba")
    assert "exp: none of valid.cer_ctc.ave.pth" in mlma("info", gone / "exp")[2]
    assert f"{gone}.zip: no such file; stage 14" in mlma("info", f"{gone}.zip")[2]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"caff\xe8", "byte 0xe8 is not UTF-8")]
)
def test_a_text_that_cannot_be_read_is_named(mlma, sounds, tmp_path, content, message):
    file = tmp_path / "said.txt"
    if content is not None:
        file.write_bytes(content)
    code, _, err = mlma("align", sounds / "a.flac", "--text-file", file)
    assert code == 1
    assert err.startswith(f"error: {file}:") and message in err


def test_info_counts_what_the_model_has(mlma, experiment):
    code, out, err = mlma("info", experiment)
    assert (code, err) == (0, "")
    assert mlma("info", "--model", experiment) == (0, out, "")
    code, _, wrong = mlma("info", "a", "--model", "b")
    assert code == 2
    assert wrong.startswith("error: a and --model b: give one of both")
    lines = dict(re.split(r": +", line, maxsplit=1) for line in out.splitlines())
    assert lines["encoder"] == "conmamba, 2 layers of 16"
    assert lines["vocabulary"].startswith("14 char: <blank> <unk> <space> a b")
    assert lines["audio"] == "16000 Hz, a frame every 40 ms"
    assert lines["languages"].startswith("unknown")
    parts = [int(n.replace(",", "")) for n in re.findall(r"[a-z]+ ([\d,]*\d)", lines["parameters"])]
    total = int(lines["parameters"].split()[0].replace(",", ""))
    network, _ = checkpoint.build(experiment)
    assert total == sum(parts) == sum(p.numel() for p in network.parameters())


def test_info_finds_the_languages_of_the_training_set(mlma, experiment, tmp_path):
    folder = tmp_path / "recipe" / "exp" / "asr"
    folder.mkdir(parents=True)
    config = (experiment / "config.yaml").read_text()
    row = "[dump/raw/train_x/wav.scp, speech, kaldi_ark]"
    config = re.sub(
        r"^train_data_path_and_name_and_type: .*$",
        f"train_data_path_and_name_and_type: [{row}]",
        config,
        flags=re.MULTILINE,
    )
    (folder / "config.yaml").write_text(config)
    (folder / "valid.loss.ave.pth").symlink_to(experiment / "valid.cer_ctc.ave.pth")
    data = tmp_path / "recipe" / "dump" / "raw" / "train_x"
    data.mkdir(parents=True)
    (data / "utt2lang").write_text("u1 it\nu2 de\nu3 it\n")
    code, out, err = mlma("info", folder)
    assert (code, err) == (0, "")
    assert "de 1, it 2 utterances\n" in out
    assert "training set: train_x\n" in out


def test_bench_prints_a_row_for_each_length(mlma, experiment, sounds):
    code, out, err = mlma(
        *("bench", "--model", experiment, "--seconds", 0.5, 1, "--audio", sounds / "a.flac")
    )
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows[-2:]] == ["0.5", "1"]
    assert all(float(ms) > 0 and float(speed) > 0 for _, ms, speed in rows[-2:])


@pytest.fixture
def send_samples(monkeypatch, sounds):
    """Puts 2 s of samples into stdin."""
    samples, _ = soundfile.read(sounds / "a.flac", dtype="int16")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(samples.tobytes())))


def test_stream_prints_the_words(mlma, experiment, send_samples):
    code, out, err = mlma("stream", "--model", experiment, "--chunk", 0.4, "--lookahead", 0.2)
    assert code == 0, err
    assert out.split() and out.count("\n") == 1
    assert err.startswith("2.0 s of audio, ")
    assert "partial texts revised" in err


def test_stream_prints_json_lines(mlma, experiment, send_samples):
    code, out, err = mlma("stream", "--model", experiment, "--jsonl")
    assert code == 0, err
    updates = [json.loads(line) for line in out.splitlines()]
    assert updates[-1]["partial"] == ""
    assert updates[-1]["heard"] == 2.0
    words = [word for update in updates for word in update["final"]]
    assert words == sorted(words, key=lambda word: word["start"])
    assert words and set(words[0]) == {"text", "start", "end", "confidence"}


class Script:
    """In the place of a transcriber: updates that are known."""

    def __init__(self, *updates):
        self.updates = list(updates)

    def push(self, samples):
        return self.updates.pop(0)

    def finish(self):
        return self.updates.pop(0)


def test_figures_are_of_delays_and_of_partial_texts_that_were_not_kept():
    script = Script(
        StreamUpdate((), "goo"),
        StreamUpdate((), "good"),
        StreamUpdate((Word("god", 0.1, 0.5, 1.0),), "m"),
        StreamUpdate((Word("morning", 0.6, 1.5, 1.0),), ""),
    )
    figures = Figures()
    list(figures.measure(script, [np.zeros(8000)] * 3))
    assert figures.heard == 1.5
    assert figures.delays == pytest.approx([1.0, 0.0], abs=0.05)
    assert (figures.partials, figures.revised) == (3, 1)
    assert figures.summary().endswith("1 of 3 partial texts revised")


def test_a_terminal_redraws_the_partial_text(monkeypatch):
    master, slave = os.openpty()
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "20")
        printer = TextPrinter()
        printer.show(StreamUpdate((), "goo"), 0.5)
        printer.show(StreamUpdate((Word("good", 0, 1, 1.0),), "mo"), 1.0)
        printer.show(StreamUpdate((Word("morning", 1, 2, 1.0),), ""), 2.0)
        printer.show(StreamUpdate((Word("everybody", 2, 3, 1.0),), ""), 3.0)
        printer.finish()
        shown = b""
        while select.select([master], [], [], 0.5)[0]:
            shown += os.read(master, 10_000)
    os.close(master)
    shown = shown.decode().replace("\r\x1b[K", "|").replace("\r\n", "/")
    assert shown == "|goo|good mo|good morning|good morning/|everybody/"


def test_a_terminal_is_no_source_of_samples(mlma, experiment, monkeypatch):
    master, slave = os.openpty()
    with open(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        code, _, err = mlma("stream", "--model", experiment)
    os.close(master)
    assert code == 2
    assert "--microphone" in err
