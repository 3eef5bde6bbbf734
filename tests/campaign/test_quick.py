"""A sample of the fault campaign, which is run as a whole by hand (docs/explanation/faults.md)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_sample_of_the_campaign_is_survived(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.campaign", "--quick", "--json", str(tmp_path / "cases")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads((tmp_path / "cases").read_text())
    assert {case["part"] for case in cases} == {"models", "corpora", "audio", "kills", "disk"}
