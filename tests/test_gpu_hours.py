"""Hours of training: the arithmetic, and that the committed figures are of these configurations."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PRINTED = BENCHMARKS / "results" / "gpu_hours.json"


def table(path: Path) -> tuple[str, dict[str, list[str]]]:
    """Title and rows, by model, of the JSON's last table."""
    title, found = json.loads(path.read_text(encoding="utf-8")).popitem()
    return title, {name: row for name, *row in found["rows"]}


@pytest.fixture
def gpu_hours(monkeypatch):
    """Runs the script with options."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])

    # The tests after these keep their threads and malloc.
    given = ["--give-back", "--threads", str(torch.get_num_threads())]

    def run(*options: object) -> None:
        monkeypatch.setattr(sys, "argv", ["gpu_hours.py", *given, *map(str, options)])
        runpy.run_path(str(BENCHMARKS / "gpu_hours.py"), run_name="__main__")

    return run


def test_printed_hours_are_those_of_the_configurations(gpu_hours, tmp_path):
    gpu_hours("--rates", PRINTED, "--json", tmp_path / "again.json")
    title, again = table(tmp_path / "again.json")
    first_title, first = table(PRINTED)
    assert "from the rates measured on" in title
    assert "rates" not in first_title
    assert again.keys() == first.keys()
    for name, (updates, heard, step, optimiser, hours) in again.items():
        assert [updates, heard, step, optimiser] == first[name][:4]
        seconds = float(heard.replace(",", "")) * 3600 * float(step)
        seconds += float(updates.replace(",", "")) * float(optimiser)
        assert float(hours.replace(",", "")) == pytest.approx(seconds / 3600, rel=1e-3)
        # The rates are printed with three digits.
        assert float(first[name][4].replace(",", "")) == pytest.approx(seconds / 3600, rel=1e-2)


def test_rates_of_two_machines_are_not_mixed(gpu_hours, capsys, tmp_path):
    printed = json.loads(PRINTED.read_text(encoding="utf-8"))
    (measured,) = (found for title, found in printed.items() if "rates" not in title)
    both = tmp_path / "both.json"
    both.write_text(json.dumps(printed | {"Hours of training on one H200": measured}))
    with pytest.raises(SystemExit):
        gpu_hours("--rates", both)
    assert "both.json: of 2 machines; give each its own --json" in capsys.readouterr().err


def test_rates_of_another_benchmark_are_one_line(gpu_hours, capsys):
    with pytest.raises(SystemExit) as end:
        gpu_hours("--rates", BENCHMARKS / "results" / "cpu.json")
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --rates ")
    assert error.count("\n") == 1
