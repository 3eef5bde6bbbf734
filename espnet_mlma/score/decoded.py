"""Where a decoding and its references are, among the folders of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.errors import MlmaError


def find_dump(place: Path) -> Path:
    """`dump/raw` of the recipe that an experiment or a decoding lies in.

    Args:
        place: the folder, as `exp/asr_*`.

    Raises:
        MlmaError: no folder above has one.
    """
    for parent in place.resolve().parents:
        if (parent / "dump" / "raw").is_dir():
            return parent / "dump" / "raw"
    raise MlmaError(f"{place}: no dump/raw above it; give the references with --dump")


def decodings(experiment: Path) -> list[Path]:
    """The folders of an experiment that stage 12 wrote, by name.

    Args:
        experiment: as `exp/asr_*`.
    """
    return sorted({text.parents[1] for text in experiment.glob("[!.]*/[!.]*/text")})


def chosen_sets(folder: Path, dump: Path, chosen: Sequence[str]) -> list[str]:
    """The test sets of a decoding that a user has chosen.

    Args:
        folder, dump: as of `decoded_sets`.
        chosen: names; empty: all.

    Raises:
        MlmaError: there is none of a name, or as of `decoded_sets`.
    """
    found = decoded_sets(folder, dump)
    unknown = next((name for name in chosen if name not in found), None)
    if unknown:
        raise MlmaError(
            f"{folder}: no set {unknown!r} is decoded in it; there are {' '.join(found)}"
        )
    return [name for name in found if name in chosen or not chosen]


def decoded_sets(folder: Path, dump: Path) -> list[str]:
    """The names of the test sets that a decoding holds.

    Args:
        folder: what stage 12 wrote, as `exp/asr_*/decode_*`.
        dump: `dump/raw`, the references.

    Raises:
        MlmaError: there is none, or one is not finished.
    """
    if folder.resolve() == dump.resolve():
        raise MlmaError(f"{folder}: these are the references; give a folder that stage 12 wrote")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    for path in inside:
        if (dump / path.name / "text").is_file() and not (path / "text").is_file():
            raise MlmaError(f"{path}: no text, decoding did not end; run stage 12 for it again")
    found = [path.name for path in inside if (path / "text").is_file()]
    if not found:
        inner = " ".join(path.name for path in decodings(folder))
        what = f"give one of {inner} in it" if inner else "run stage 12 first"
        raise MlmaError(f"{folder}: no set is decoded in it; {what}")
    return found
