"""The public names: those of the table in docs/reference/python.md, each used by a test."""

import re
from importlib import import_module
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "reference" / "python.md"
NAMES = re.findall(r"^\| `(espnet_mlma[\w.]*)\.(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
MODULES = sorted({module for module, _ in NAMES} - {"espnet_mlma.memory"})


@pytest.mark.parametrize("module", MODULES)
def test_the_table_has_all_names_of_a_module(module):
    listed = {name for of, name in NAMES if of in ("espnet_mlma", module)}
    assert {name for of, name in NAMES if of == module} <= set(import_module(module).__all__)
    assert set(import_module(module).__all__) - {"__version__"} <= listed


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_can_be_imported_and_is_described(module, name):
    value = getattr(import_module(module), name)
    assert value.__doc__


def test_each_public_name_is_used_by_a_test():
    tests = [file for file in TESTS.rglob("test_*.py") if file != Path(__file__)]
    # Some tests run a name in a process of its own, from a string.
    words = {word for file in tests for word in re.findall(r"\w+", file.read_text("utf-8"))}
    assert {name for _, name in NAMES} - words == set()
