"""Imports go one way: a room takes from those above it in CONTRIBUTING.md, which has them all."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "espnet_mlma"
# What says what the package is, and not how it is done.
APART = {"__init__.py", "version.py"}


def rooms() -> list[str]:
    """Folders and modules of the package in the order of the table."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = re.search(r"^\| room \|.*?\n\n", text, re.MULTILINE | re.DOTALL)[0]
    first = [row.split("|")[1] for row in table.strip().splitlines()]
    names = [name for column in first for name in re.findall(r"`(.*?)`", column)]
    return [name.rstrip("/") for name in names if (PACKAGE / name).exists()]


def imported(file: Path) -> set[str]:
    """First parts below the package of what a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "espnet_mlma":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("espnet_mlma."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] for name in names if name[0] == "espnet_mlma" and len(name) > 1}
    return found


def test_all_rooms_are_in_the_table():
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in there if name[0] != "_"} - APART == set(rooms())


def test_a_room_imports_those_above_it():
    order = [name.removesuffix(".py") for name in rooms()]
    wrong = []
    for place, room in enumerate(order):
        files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").is_file() else []
        for file in files or sorted((PACKAGE / room).rglob("*.py")):
            below = imported(file) & set(order[place + 1 :])
            wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(below)]
    assert order
    assert wrong == []
