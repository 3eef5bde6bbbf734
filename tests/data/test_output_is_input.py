"""Test that no program replaces its own input."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError
from espnet_mlma.sst.commands import main as sst

TABLES = ("text", "wav.scp", "utt2lang", "utt2num_samples", "utt2spk")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Make a data folder, a model folder and texts."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/test", "exp/asr", "exp/2"):
        Path(folder).mkdir(parents=True)
    for name in TABLES:
        Path("data/test", name).write_text("a b\n")
    for name in ("exp/asr/config.yaml", "exp/asr/model.pth", "decode.yaml", "exp/2/config.yaml"):
        Path(name).write_text("a: 1\n")
    for name in ("talk.wav", "said.jsonl", "log.jsonl", "src.txt", "ref.txt"):
        Path(name).write_text("a\n")
    Path("way").symlink_to("data")
    os.link("said.jsonl", "hard.jsonl")
    return tmp_path


DECODE = ["--asr_train_config", "exp/asr/config.yaml", "--asr_model_file", "exp/asr/model.pth"]
DECODE += ["--config", "decode.yaml", "--data_dir", "data/test"]
SECONDS = ["--min_seconds", "0", "--max_seconds", "9"]
STAGES = [
    ("data.filter", ["--data", "data/test", "--output", "data/test", *SECONDS]),
    ("data.filter", ["--data", "data/test", "--output", "way/test", *SECONDS]),
    ("data.filter", ["--data", "data/test", "--output", "data", *SECONDS]),
    ("data.speed_perturb", ["--data", "data/test", "--output", "./data/test", "--factors", "1"]),
    ("data.format_audio", ["--data", "way/test", "--output", "data/test"]),
    ("data.format_audio", ["--data", "data/test", "--output", "."]),
    ("data.tokens", ["--text", "data/test/text", "--output", "data/test", "--token_type", "char"]),
    ("decode.stage", [*DECODE, "--output_dir", "data"]),
    ("decode.stage", [*DECODE, "--output_dir", "way"]),
    ("evaluation.calibrate", [*DECODE, "--output", "exp/asr/config.yaml"]),
    ("evaluation.calibrate", [*DECODE, "--output", "data/test/text"]),
]
REFERENCES = ["--segments", "said.jsonl", "--references", "ref.txt", "--target", "de"]
SST = [
    ("translate", ["--sentences", "said.jsonl", "--out", "said.jsonl", "--target", "de",
                   "--table", "ref.txt"]),
    ("translate", ["--sentences", "src.txt", "--out", "hard.jsonl", "--target", "de",
                   "--table", "said.jsonl"]),
    ("words", ["--sentences", "said.jsonl", "--out", "./said.jsonl", "--model", "exp/asr"]),
    ("words", ["--sentences", "said.jsonl", "--out", "exp/asr/config.yaml", "--model", "exp/asr"]),
    ("align", ["--sentences", "said.jsonl", "--out", "said.jsonl", "--encoder", "exp/2"]),
    ("build", ["--sentences", "said.jsonl", "--out", "hard.jsonl"]),
    ("talks", ["--sentences", "data/test/text", "--out", "data"]),
    ("train", ["--stage", "1", "--config", "decode.yaml", "--data", "said.jsonl",
               "--out", "said.jsonl"]),
    ("stream", ["--model", "exp/2", "--wav", "talk.wav", "--log", "talk.wav"]),
    ("stream", ["--model", "exp/2", "--wav", "talk.wav", "--log", "exp/2/config.yaml"]),
    ("score", ["--log", "log.jsonl", *REFERENCES, "-o", "ref.txt"]),
    ("score", ["--log", "log.jsonl", *REFERENCES, "-o", "log.jsonl"]),
]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("module", "options"), STAGES)
def test_a_stage_replaces_no_input(place, monkeypatch, module, options):
    before = contents(place)
    monkeypatch.setattr(sys, "argv", [module, *options])
    with pytest.raises(MlmaError, match="replac.*name another place"):
        importlib.import_module(f"espnet_mlma.{module}").main()
    assert contents(place) == before


@pytest.mark.parametrize(("command", "options"), SST)
def test_the_translator_replaces_no_input(place, monkeypatch, command, options):
    pytest.importorskip("transformers")
    before = contents(place)
    monkeypatch.setattr(sys, "argv", ["sst", command, *options])
    with pytest.raises(MlmaError, match="replac.*name another place"):
        sst()
    assert contents(place) == before


def test_comet_files_replace_no_input(place):
    quality = pytest.importorskip("espnet_mlma.sst.score.quality")
    before = contents(place)
    with pytest.raises(MlmaError, match=r"ref\.txt: writing it would replace"):
        quality.export(place, ["a"], ["b"], ["c"], [None, Path("ref.txt")])
    assert contents(place) == before


@pytest.mark.parametrize("option", ["--data", "--output"])
def test_an_empty_folder_name_is_an_error(place, monkeypatch, capsys, option):
    options = {"--data": "data/test", "--output": "new"} | {option: ""}
    line = [part for pair in options.items() for part in pair]
    monkeypatch.setattr(sys, "argv", ["filter", *line, *SECONDS])
    with pytest.raises(SystemExit) as end:
        importlib.import_module("espnet_mlma.data.filter").main()
    assert end.value.code == 2 and "is empty" in capsys.readouterr().err
