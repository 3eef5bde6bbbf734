"""Names, sizes and dates of the weights that a model is loaded from.

A model that is trained anew at the same place has other ones, so what was made with the old one is
not taken for done.
"""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[str, int, int]
"""A file's name, its size in bytes, and when it was last written, in nanoseconds."""

# Either may hold the weights of a Hugging Face folder.
_WEIGHTS = (".safetensors", ".bin")


def of_weights(path: Path) -> list[Stamp]:
    """Those of a file of weights, or of all in a Hugging Face folder.

    Args:
        path: where nothing is there, as for a model of the hub, there are no stamps.
    """
    inside = sorted(file for file in path.glob("*") if file.suffix in _WEIGHTS)
    # What a broken link points to is missed when it is loaded.
    found = [(file.name, file.stat()) for file in (path, *inside) if file.is_file()]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]


def of_recogniser(path: Path) -> list[Stamp]:
    """That of a recogniser's checkpoint, or of the zip it is packed in.

    Args:
        path: as of `espnet_mlma.loading.checkpoint.build`; a model of the hub has none.

    Raises:
        MlmaError: it is there and is no recogniser, or has no checkpoint.
    """
    if path.suffix == ".zip" or not path.exists():
        return of_weights(path)
    # PyTorch takes seconds to import, and words from TextGrid files need none.
    from espnet_mlma.loading.checkpoint import located

    with located(path) as (_, checkpoint):
        return of_weights(checkpoint)
