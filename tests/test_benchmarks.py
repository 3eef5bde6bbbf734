"""The benchmarks start, and the documents' tables are those that they printed."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(
    p.name for p in BENCHMARKS.glob("*.py") if p.name not in ("common.py", "encoders.py")
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


def printed_tables():
    """Every table row that a run has left in benchmarks/results."""
    rows = set()
    for path in (BENCHMARKS / "results").glob("*.json"):
        for found in json.loads(path.read_text(encoding="utf-8")).values():
            for row in (found["header"], *found["rows"]):
                rows.add("| " + " | ".join(map(str, row)) + " |")
    return rows


@pytest.mark.parametrize("document", ["README.md", "benchmarks/README.md"])
def test_tables_of_figures_are_those_of_the_runs(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    if document == "README.md":
        text = re.search(r"^## Speed\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)[1]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    known = printed_tables()
    assert rows
    assert [row for row in rows if row not in known] == []
