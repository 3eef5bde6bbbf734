"""`mlma recipe` and `mlma translate`: programs behind a command, and new recipe folders."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from espnet_mlma.cli import new
from espnet_mlma.cli.recipe import STAGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_module_that_knows_its_name(name):
    spec = find_spec(STAGES[name][0])
    text = Path(spec.origin).read_text(encoding="utf-8")
    assert f'prog="mlma recipe {name}"' in text
    assert re.search(r"^def main\(argv: ", text, re.MULTILINE)


def test_the_recipe_names_no_unknown_stage():
    scripts = [*ROOT.glob("egs2/*/*/*.sh"), *ROOT.glob("local/*.sh")]
    text = "".join(script.read_text(encoding="utf-8") for script in scripts)
    named = set(re.findall(r"espnet_mlma\.cli recipe (\S+)", text))
    assert named and named <= set(STAGES)


def test_help_of_a_stage_is_its_own(mlma):
    code, out, _ = mlma("recipe", "filter", "--help")
    assert code == 0 and out.startswith("usage: mlma recipe filter")
    code, out, _ = mlma("translate", "talks", "--help")
    assert code == 0 and out.startswith("usage: mlma translate talks")


@pytest.mark.parametrize("line", [["recipe", "none"], ["recipe"], ["translate", "none"]])
def test_an_unknown_stage_is_wrong_usage(mlma, line):
    code, out, err = mlma(*line)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_values_of_a_configuration(mlma, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("epochs: 40 # many\nuse: true\nname: 'a b'\nnone:\nlist: [1]\n")
    names = ("epochs", "use", "name", "none=3", "missing=x=y")
    assert mlma("recipe", "conf", file, *names) == (0, "40\ntrue\na b\n3\nx=y\n", "")
    for name in ("missing", "list"):
        code, out, err = mlma("recipe", "conf", file, name)
        assert (code, out) == (1, "") and f"a.yaml: {name} is " in err


def check_recipe(folder: Path) -> None:
    """Check that a recipe's scripts run outside a checkout."""
    names = {path.name for path in folder.iterdir()}
    assert {"asr.sh", "run.sh", "path.sh", "db.sh", "conf", "local"} <= names
    assert not names & {"data", "db", "dump", "exp", "ablation"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    command = [folder / "run.sh", "--stage", "99", "--stop_stage", "0"]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_a_new_recipe_runs_in_any_folder(mlma, tmp_path):
    folder = tmp_path / "my recipe"
    assert mlma("recipe", "new", folder)[0] == 0
    check_recipe(folder)
    code, _, err = mlma("recipe", "new", folder)
    assert code == 1 and "exists already" in err


def test_an_installed_package_has_the_recipe(tmp_path):
    """As setup.py copies it; results in the checkout stay there."""
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for part in ("espnet_mlma/scan/native", *new.PARTS):
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True, dirs_exist_ok=True)
    shutil.copy(ROOT / "espnet_mlma" / "version.py", tmp_path / "espnet_mlma")
    (tmp_path / "espnet_mlma" / "__init__.py").touch()
    (tmp_path / "egs2/mlma/asr1/exp").mkdir(exist_ok=True)
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "lib"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    package = tmp_path / "lib" / "espnet_mlma"
    assert new.source(package) == package / "recipe"
    new.lay_out(package / "recipe", tmp_path / "laid")
    check_recipe(tmp_path / "laid")
