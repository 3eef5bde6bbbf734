import subprocess
import sys
from pathlib import Path

import pytest

FIND_PYTHON = Path(__file__).resolve().parents[1] / "tools" / "find_python.sh"
NO_PYENV = {"PYENV_ROOT": "/nowhere", "HOME": "/nowhere"}


def put(folder: Path, name: str, body: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def shims(tmp_path: Path) -> Path:
    """Make a PATH of pyenv's shims for inactive versions, and a uv that finds none."""
    for name in ("python3.13", "python3.12", "python3"):
        put(tmp_path / "shims", name, f'echo "pyenv: {name}: command not found" >&2; exit 127')
    put(tmp_path / "shims", "uv", "exit 2")
    return tmp_path / "shims"


def find(path: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": f"{path}:/usr/bin:/bin"} | NO_PYENV | variables
    return subprocess.run([FIND_PYTHON], env=environment, capture_output=True, text=True)


def test_a_python_that_runs_is_found_on_the_path(shims: Path) -> None:
    put(shims, "python3", f'exec {sys.executable} "$@"')
    found = find(shims)
    assert (found.stdout.strip(), found.returncode) == (sys.executable, 0)


def test_pyenvs_versions_are_tried_after_its_shims(shims: Path) -> None:
    versions = shims.parent / "pyenv" / "versions"
    put(versions / "3.12.9" / "bin", "python3", f'exec {sys.executable} "$@"')
    found = find(shims, PYENV_ROOT=str(shims.parent / "pyenv"))
    assert (found.stdout.strip(), found.returncode) == (sys.executable, 0)


def test_uv_is_tried_last(shims: Path) -> None:
    put(shims, "uv", f'[ "$*" = "python find 3.12" ] && echo {sys.executable}')
    assert find(shims).stdout.strip() == sys.executable


def test_without_a_python_the_error_lists_what_was_tried(shims: Path) -> None:
    found = find(shims)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("error: no working Python 3.12 or 3.13; tried: python3.13 ")
    assert "uv python find" in found.stderr


def test_another_version_is_not_accepted(shims: Path) -> None:
    put(shims, "python3", "exit 1")  # the check fails
    assert find(shims).returncode == 1


def test_python_of_the_environment_wins(shims: Path) -> None:
    put(shims.parent / "mine", "python", f'exec {sys.executable} "$@"')
    found = find(shims, PYTHON=str(shims.parent / "mine" / "python"))
    assert found.stdout.strip() == sys.executable


def test_python_of_the_environment_must_work(shims: Path) -> None:
    put(shims, "python3", f'exec {sys.executable} "$@"')
    found = find(shims, PYTHON="/nowhere/python")
    assert found.returncode == 1
    assert found.stderr.startswith(
        "error: PYTHON=/nowhere/python is not a working Python 3.12 or 3.13"
    )
