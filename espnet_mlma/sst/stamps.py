"""Identify a model's weights by file name, size and modification time.

A model retrained in the same folder gets new stamps, so results of the old model are redone.
"""

from __future__ import annotations

from pathlib import Path

from espnet_mlma.loading.paths import located

Stamp = tuple[str, int, int]
"""File name, size in bytes, modification time in nanoseconds."""

# Hugging Face folders hold weights in either format.
_WEIGHTS = (".safetensors", ".bin")


def of_weights(path: Path) -> list[Stamp]:
    """Return the stamps of a weights file, or of all weights in a Hugging Face folder.

    Args:
        path: file or folder; a missing path, such as a model name on the hub, has no stamps.
    """
    inside = sorted(file for file in path.glob("*") if file.suffix in _WEIGHTS)
    # Broken links are reported when the model is loaded.
    found = [(file.name, file.stat()) for file in (path, *inside) if file.is_file()]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]


def of_recogniser(path: Path) -> list[Stamp]:
    """Return the stamp of a recogniser's checkpoint, or of its zip file.

    Args:
        path: see `espnet_mlma.loading.checkpoint.build`; a model name on the hub has no stamps.

    Raises:
        MlmaError: the path exists but is not a recogniser, or has no checkpoint.
    """
    if path.suffix == ".zip" or not path.exists():
        return of_weights(path)
    with located(path) as (_, checkpoint):
        return of_weights(checkpoint)
