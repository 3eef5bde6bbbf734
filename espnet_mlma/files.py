"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from espnet_mlma.errors import MlmaError


def write(path: Path, contents: str) -> None:
    """Write a file whole or not at all, in UTF-8; makes its folder.

    Raises:
        MlmaError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(contents, encoding="utf-8", newline="\n")
        os.replace(new, path)
    except OSError as error:
        raise MlmaError(
            f"cannot write {path}: {error.strerror}; make room or choose another place with -o"
        ) from None
