"""The source distribution has what a checkout has, and the version is the same everywhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from espnet_mlma.version import __version__

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> list[str]:
    """Files of the checkout that git tracks; the test skips where there is no checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no git")
    if found.returncode or not (ROOT / ".git").exists():
        pytest.skip(f"{ROOT} is not a checkout")
    return [name for name in found.stdout.split("\0") if name and (ROOT / name).exists()]


def test_sdist_has_every_tracked_file(tmp_path):
    """By setuptools' list of files; links to folders are written as folders."""
    wanted = tracked()
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (listed,) = tmp_path.glob("*.egg-info/SOURCES.txt")
    files = listed.read_text(encoding="utf-8").splitlines()
    there = {str(folder) for name in files for folder in (Path(name), *Path(name).parents)}
    assert [name for name in wanted if name not in there] == []
    results = ("egs2/mlma/asr1/exp", "egs2/mlma/asr1/db", "egs2/mlma/asr1/dump")
    assert not there & {*results, "egs2/mlma/sst1/exp", "build"}


def test_changelog_and_citation_have_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    titles = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert titles[0] in (__version__, "Unreleased")
