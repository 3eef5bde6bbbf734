"""Lay out the recipe in a new folder: egs2/mlma/asr1 with its conf and local.

mlma recipe new my_recipe
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.arguments import ArgumentParser
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import replace_folder

PACKAGE = Path(__file__).resolve().parents[1]
# Folders of a checkout; setup.py copies them to `recipe/` in the installed package.
PARTS = {"egs2/mlma/asr1": ".", "conf": "conf", "local": "local"}
# Links, results of a checkout, and the ablation grid, which needs benchmarks/.
_NOT_COPIED = ("conf", "local", "data", "db", "dump", "exp", "ablation", "__pycache__")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the folder and print how to start.

    Raises:
        MlmaError: the folder exists, or cannot be written.
    """
    parser = ArgumentParser(
        prog="mlma recipe new", description="Lay out the recipe in a new folder."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="must not exist")
    folder = parser.parse_args(argv).folder
    if folder.exists() or folder.is_symlink():
        raise MlmaError(f"{folder}: exists already; name a new folder")
    lay_out(source(), folder)
    print(f"wrote {folder}; start with {folder}/run.sh --help")


def source(package: Path = PACKAGE) -> Path:
    """Return the folder with the recipe's parts: of the installed package, or the checkout.

    Args:
        package: the folder of espnet_mlma.

    Raises:
        MlmaError: neither has them.
    """
    for folder in (package / "recipe", package.parent):
        if all((folder / part).is_dir() for part in PARTS):
            return folder
    raise MlmaError(f"{package}: installed without the recipe; reinstall espnet-mlma")


def lay_out(parts: Path, folder: Path) -> None:
    """Copy the recipe's parts into one folder, without data and results of a checkout.

    Args:
        parts: with `PARTS`.
        folder: to write; it appears whole or not at all.
    """

    def fill(new: Path) -> None:
        for part, place in PARTS.items():
            ignored = shutil.ignore_patterns(*_NOT_COPIED)
            shutil.copytree(parts / part, new / place, ignore=ignored, dirs_exist_ok=True)

    replace_folder(folder, fill)
