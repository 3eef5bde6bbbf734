"""No command replaces what it reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def talk(sounds, tmp_path, monkeypatch) -> Path:
    """A sound whose suffix is none of sound."""
    monkeypatch.chdir(tmp_path)
    for name in ("talk.wav", "b.txt", "c.json", "d.TextGrid"):
        shutil.copy(sounds / "b.wav", tmp_path / name)
    (tmp_path / "said.ctm").write_text("abc de")
    (tmp_path / "link.json").symlink_to("talk.wav")
    os.link("talk.wav", "hard.ctm")
    return tmp_path


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_refused(mlma, *line, folders: list[Path]) -> None:
    before = [contents(folder) for folder in folders]
    code, out, err = mlma(*line)
    assert code in (1, 2) and out == "" and err.startswith("error: "), (code, out, err)
    assert len(err.splitlines()) == 1
    assert [contents(folder) for folder in folders] == before


ALIGN = {
    "sound": ["talk.wav", "--text", "abc", "--format", "textgrid", "-o", "talk.wav"],
    "sound, its suffix": ["d.TextGrid", "--text", "abc", "-o", "d.TextGrid"],
    "sound, another name": ["c.json", "--text", "abc", "-o", "./../{}/c.json"],
    "link": ["talk.wav", "--text", "abc", "-o", "link.json"],
    "hard link": ["talk.wav", "--text", "abc", "-o", "hard.ctm"],
    "text": ["talk.wav", "--text-file", "said.ctm", "-o", "said.ctm"],
    "config": ["talk.wav", "--text", "abc", "--format", "json", "-o", "{model}/config.yaml"],
    "weights": ["talk.wav", "--text", "abc", "--format", "ctm",
                "-o", "{model}/valid.cer_ctc.ave.pth"],
}  # fmt: skip


@pytest.mark.parametrize("kind", ALIGN)
def test_align_replaces_no_input(mlma, experiment, talk, kind):
    line = [part.format(talk.name, model=experiment) for part in ALIGN[kind]]
    assert_refused(mlma, "align", *line, "--model", experiment, folders=[talk, experiment])
    if "{model}" in ALIGN[kind][-1]:
        config = experiment / "config.yaml"
        assert_refused(mlma, "align", *line, "--model", config, folders=[talk, experiment])


TRANSCRIBE = {
    "txt": ["b.txt", "--format", "txt", "-o", "."],
    "all": ["c.json", "--format", "all", "-o", "."],
    "another name": ["b.txt", "--format", "txt", "-o", "../{}"],
    "another sound's": ["talk.wav", "c.json", "--format", "json", "-o", "."],
    "beside": ["b.txt", "--format", "txt"],
    "model of words": ["talk.wav", "--lm", "talk.txt", "--format", "txt", "-o", "."],
}


@pytest.mark.parametrize("kind", TRANSCRIBE)
def test_transcribe_replaces_no_input(mlma, experiment, talk, kind):
    if kind == "another sound's":
        shutil.copy("c.json", "talk.json")
        TRANSCRIBE[kind][1] = "talk.json"
    (talk / "talk.txt").write_text("\\data\\\nngram 1=1\n")
    line = [part.format(talk.name) for part in TRANSCRIBE[kind]]
    assert_refused(mlma, "transcribe", *line, "--model", experiment, folders=[talk, experiment])


def test_stdin_is_an_input(experiment, talk):
    before = contents(talk)
    line = [sys.executable, "-m", "espnet_mlma.cli", "align", "-", "--text", "abc"]
    line += ["--model", str(experiment), "--format", "ctm", "-o", "talk.wav"]
    with open("talk.wav", "rb") as sound:
        done = subprocess.run(line, stdin=sound, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: talk.wav: "), done.stderr
    assert contents(talk) == before


def test_compare_and_report_replace_no_input(mlma, tmp_path):
    decoded = tmp_path / "exp" / "decode_a" / "test_x"
    decoded.mkdir(parents=True)
    (decoded / "text").write_text("a b\n")
    (decoded.parent / "measured.json").write_text(json.dumps({}))
    (tmp_path / "exp" / "config.yaml").write_text(yaml.safe_dump({"a": 1}))
    for output in (decoded / "text", decoded.parent / "measured.json"):
        line = ("compare", f"a={decoded.parent}", "--published", "none", "-o", output)
        assert_refused(mlma, *line, folders=[tmp_path])
    line = ("report", tmp_path / "exp", "--decoding", "decode_a", "-o", decoded / "text")
    assert_refused(mlma, *line, folders=[tmp_path])


EMPTY = {
    "model": ["transcribe", "a.wav", "--model", ""],
    "model=": ["transcribe", "a.wav", "--model="],
    "file": ["transcribe", ""],
    "one of the files": ["transcribe", "a.wav", "", "b.wav"],
    "lm": ["transcribe", "a.wav", "--lm", ""],
    "output": ["transcribe", "a.wav", "--format", "txt", "-o", ""],
    "text": ["align", "a.wav", "--text", ""],
    "text file": ["align", "a.wav", "--text-file", ""],
    "aligned": ["align", "", "--text", "a"],
    "alignment": ["align", "a.wav", "--text", "a", "-o", ""],
    "info": ["info", ""],
    "bench": ["bench", "--audio", ""],
    "device": ["stream", "--device", ""],
    "compare": ["compare", "-o", ""],
    "report": ["report", ""],
    "dump": ["report", "exp", "--dump", ""],
    "demo": ["demo", "--model", "exp/a", ""],
}


@pytest.mark.parametrize("kind", EMPTY)
def test_an_empty_argument_is_an_error(mlma, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = mlma(*EMPTY[kind])
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert err.startswith("error: ") and "is empty" in err


def test_an_empty_variable_is_an_error(mlma, monkeypatch):
    monkeypatch.setenv("MLMA_MODEL", "")
    code, out, err = mlma("info")
    assert (code, out) == (1, "") and err.startswith("error: MLMA_MODEL is empty")


def test_a_text_may_end_as_an_option_does(mlma, experiment, sounds):
    line = ("align", sounds / "b.wav", "--text", "--a=", "--model", experiment)
    assert "is empty" in mlma(*line)[2]
    code, _, err = mlma("align", sounds / "b.wav", "--text=a b=", "--model", experiment)
    assert code == 0, err


def test_the_current_folder_is_a_model(mlma, experiment, monkeypatch):
    monkeypatch.chdir(experiment)
    code, out, err = mlma("info", ".")
    assert code == 0 and "conmamba" in out, err
