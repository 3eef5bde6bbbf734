"""tools/tables.py writes results into documents."""

import json
import sys
from pathlib import Path

import pytest

from espnet_mlma.errors import MlmaError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from tables import with_tables  # noqa: E402

MACHINE = {"cpu": "2 x Zen", "torch": "2.13", "commit": "abc", "date": "2026-01-01", "threads": "1"}
RESULTS = {"One, two": {"machine": MACHINE, "header": ["what", "ms"], "rows": [["a", 1], ["b", 2]]}}


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "benchmarks").mkdir()
    for name in ("benchmarks/a.json", "errors.json"):
        (tmp_path / name).write_text(json.dumps(RESULTS))
    return tmp_path


def test_a_table_replaces_the_old_one(root):
    text = "Before:\n\n<!-- table: benchmarks/a.json: One, two -->\n\nAfter. At commit x.\n"
    found = with_tables(text, root)
    assert "| a | 1 |\n| b | 2 |\n" in found
    assert "2 x Zen, 1 thread, " in found
    assert found.startswith("Before:\n") and found.endswith("\n\nAfter. At commit x.\n")
    assert with_tables(found.replace("| a | 1 |", "| c | 3 |\n| d | 4 |"), root) == found


def test_a_table_without_times_has_no_caption(root):
    found = with_tables("<!-- table: errors.json: One, two -->\n\nAfter.\n", root)
    assert found.endswith("| b | 2 |\n\nAfter.\n") and "Zen" not in found


@pytest.mark.parametrize("place", ["benchmarks/a.json: Three", "benchmarks/b.json: One, two"])
def test_a_missing_table_is_an_error(root, place):
    with pytest.raises(MlmaError, match="json: has no table"):
        with_tables(f"<!-- table: {place} -->\n", root)
