"""The benchmarks start, and keep their records."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(
    path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
)


def start(monkeypatch, script, *arguments):
    """Run a script in this process; returns its exit status."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
    return end.value.code or 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_benchmark_starts(monkeypatch, capsys, script):
    assert start(monkeypatch, script, "--help") == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", ["gpu_scan.py", "encoder_gpu.py"])
def test_gpu_benchmarks_say_that_there_is_no_gpu(monkeypatch, capsys, script):
    assert start(monkeypatch, script) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_texts_are_those_of_espnet(monkeypatch, tmp_path, experiment):
    """And the script that says so counts every utterance once."""
    generator = np.random.default_rng(0)
    for i, seconds in enumerate((1.2, 2.0, 0.7)):
        samples = generator.normal(0, 0.1, round(seconds * 16000))
        soundfile.write(tmp_path / f"{i}.wav", samples, 16000)
    (tmp_path / "wav.scp").write_text("".join(f"{i} {tmp_path / f'{i}.wav'}\n" for i in range(3)))
    (tmp_path / "text").write_text("0 a\n1 b\n2 c\n")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    options = ["--model", experiment, "--data", tmp_path, "--json", tmp_path / "found.json"]
    options += ["--threads", torch.get_num_threads(), "--give-back"]
    monkeypatch.setattr(sys, "argv", ["decode_espnet.py", *map(str, options)])
    runpy.run_path(str(BENCHMARKS / "decode_espnet.py"), run_name="__main__")
    (found,) = json.loads((tmp_path / "found.json").read_text()).values()
    assert found["header"] == ["utterances", "3"]
    ours, espnets, same_text, higher, lower = (number for _, number in found["rows"])
    assert ours == 3
    assert same_text == espnets
    assert espnets + higher + lower == 3


def test_random_model_writes_as_many_symbols_as_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    from peaky import sharpen

    torch.manual_seed(0)
    frames, layer = torch.randn(2000, 64), torch.nn.Linear(64, 100)
    sharpen(layer, frames, 150)
    symbols = layer(frames).argmax(1)
    assert int((symbols != 0).sum()) == 150
    assert len(symbols[symbols != 0].unique()) > 80
    assert not torch.isin(symbols, torch.tensor([1, 99])).any()


def test_a_table_that_came_out_as_it_was_keeps_its_record(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from common import save

    file, commits = tmp_path / "found.json", []
    for commit, figure in (("a", 1), ("b", 1), ("c", 2)):
        save(file, "T", ("x",), [[figure]], {"commit": commit})
        commits.append(json.loads(file.read_text())["T"]["machine"]["commit"])
    assert commits == ["a", "a", "c"]
