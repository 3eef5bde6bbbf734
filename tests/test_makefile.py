"""The Makefile in folders of any name."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPE = Path("egs2/mlma/asr1")
RESULTS = RECIPE / "exp/asr_train_asr_conmamba_mini_raw_mini_char/RESULTS.md"
# In the place of the recipes: they say what environment they were given, and that alone.
SCRIPT = """#!/usr/bin/env bash
[ -x "$VIRTUAL_ENV/bin/python" ] && [ "$(command -v python)" = "$VIRTUAL_ENV/bin/python" ] || exit 1
mkdir -p "$(dirname "$0")/exp/asr_train_asr_conmamba_mini_raw_mini_char"
echo "the table" >"$(dirname "$0")/exp/asr_train_asr_conmamba_mini_raw_mini_char/RESULTS.md"
"""
NAMES = ["my drive", "it's", 'a "b"', "$HOME", "100% & more", "a;b (c)", "però"]


@pytest.fixture(params=NAMES)
def checkout(request, tmp_path) -> Path:
    folder = tmp_path / request.param / "espnet mlma"
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "Makefile", folder)
    for recipe in (RECIPE, Path("egs2/mlma/sst1")):
        (folder / recipe).mkdir(parents=True)
        (folder / recipe / "run.sh").write_text(SCRIPT)
        (folder / recipe / "run.sh").chmod(0o755)
    for name in ("espnet_mlma", "tests"):
        (folder / name).mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text("#!/bin/sh\n")
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    return folder


def make(folder: Path, *targets: str) -> subprocess.CompletedProcess:
    """Run make as from a shell, even below `make test`; the environment counts as installed."""
    given = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    variables = {name: value for name, value in os.environ.items() if name not in given}
    command = ["make", "-o", ".venv/installed", *targets]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def test_a_folder_may_have_any_name(checkout):
    done = make(checkout, "demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the table\n") and done.stderr == ""
    assert make(checkout, "demo").stdout == "the table\n"  # and is not made again
    (checkout / RESULTS).unlink()
    done = make(checkout, "demo")
    assert done.returncode and f"error: {RESULTS} is gone" in done.stderr
    done = make(checkout, "translation")
    assert done.returncode == 0, done.stderr
    done = make(checkout, "clean")
    assert done.returncode == 0, done.stderr
    assert not (checkout / RECIPE / "exp").exists() and (checkout / "conf").is_dir()
