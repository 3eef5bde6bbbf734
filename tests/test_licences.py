"""Dependencies: a range for each, their licences in the documentation, none of the GPL required."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reference" / "licences.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def licences():
    spec = importlib.util.spec_from_file_location("licences", ROOT / "tools" / "licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_has_a_lower_and_an_upper_bound(licences):
    for extra, wanted in licences.requirements().items():
        for requirement in wanted:
            if requirement.name != "espnet-mlma":
                operators = {one.operator for one in requirement.specifier}
                assert operators == {">=", "<"}, f"{requirement} of [{extra}]"


def test_the_page_has_every_dependency_with_its_range_and_licence(licences):
    rows = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", PAGE, re.MULTILINE)]
    rows = {(row[0].partition("[")[0], row[2].strip()): row for row in rows if len(row) == 5}
    wanted = licences.requirements()
    asked = {
        (r.name, extra): r for extra in wanted.keys() - licences.OMITTED for r in wanted[extra]
    }
    assert asked.keys() == rows.keys() - {("package", "extra")}
    for key, requirement in asked.items():
        assert set(rows[key][1].split(", ")) == {str(one) for one in requirement.specifier}
        assert licences.licence(key[0]) in (rows[key][3], "not installed here")
    assert "| unknown |" not in PAGE and "\n| not installed" not in PAGE


def test_what_is_under_the_gpl_is_an_extra(licences):
    for requirement in licences.requirements()[""]:
        assert not re.search(r"\bA?GPL", licences.licence(requirement.name)), requirement
    assert not re.search(r"\bA?GPL", PAGE.partition("Without extras:")[2].partition("With the")[0])


@pytest.mark.slow
def test_the_package_works_without_espeak(tmp_path):
    code = """
import sys
sys.modules["espeakng_loader"] = None
from pathlib import Path
import espnet_mlma.cli, espnet_mlma.data.corpora, espnet_mlma.espnet.synthetic_speech
from espnet_mlma.data.corpora import espeak, mini
from espnet_mlma.errors import MlmaError
for generate in (espeak.Espeak, lambda: mini.generate(Path(sys.argv[1]), nj=1)):
    try:
        generate()
    except MlmaError as error:
        print(error)
print("end")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "mini")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *errors, end = done.stdout.splitlines()
    assert end == "end" and len(errors) == 2, done.stderr
    assert all('pip install "espnet-mlma[synthetic]"' in error for error in errors)
    assert not list((tmp_path / "mini").glob("*/*.json"))
