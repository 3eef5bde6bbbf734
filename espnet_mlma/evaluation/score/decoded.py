"""Find decodings and their references in the folders of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espnet_mlma.data.tables import folders_above
from espnet_mlma.decode.fingerprint import check_alike
from espnet_mlma.errors import MlmaError


def find_dump(place: Path) -> Path:
    """Find `dump/raw` of the recipe that contains an experiment or a decoding.

    Args:
        place: the folder, such as `exp/asr_*`.

    Raises:
        MlmaError: no folder above has one.
    """
    for parent in folders_above(place):
        if (parent / "dump" / "raw").is_dir():
            return parent / "dump" / "raw"
    raise MlmaError(f"{place}: no dump/raw above it; give the references with --dump")


def decodings(experiment: Path) -> list[Path]:
    """List the folders of an experiment that stage 12 wrote, by name.

    Args:
        experiment: such as `exp/asr_*`.
    """
    return sorted({text.parents[1] for text in experiment.glob("[!.]*/[!.]*/text")})


def decoded_sets(folder: Path, dump: Path, chosen: Sequence[str] = ()) -> list[str]:
    """List the test sets of a decoding.

    Args:
        folder: written by stage 12, such as `exp/asr_*/decode_*`.
        dump: references, `dump/raw`.
        chosen: names of sets; empty: all.

    Raises:
        MlmaError: there is no set, a chosen one is missing or unfinished, or the sets were decoded
            differently.
    """
    if (folder / "text").is_file():
        raise MlmaError(f"{folder}: this is one set; give the folder that contains it")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    wanted = [path for path in inside if path.name in chosen or not chosen]
    for path in wanted:
        if (path / "utt2spk").is_file():
            raise MlmaError(f"{path}: these are references; give a folder that stage 12 wrote")
        if (dump / path.name / "text").is_file() and not (path / "text").is_file():
            raise MlmaError(f"{path}: no text, decoding did not finish; run stage 12 for it again")
    found = [path.name for path in wanted if (path / "text").is_file()]
    missing = next((name for name in chosen if name not in found), None)
    if missing:
        names = " ".join(path.name for path in inside if (path / "text").is_file())
        raise MlmaError(f"{folder}: has no decoded set {missing!r}; choose from {names}")
    if not found:
        inner = " ".join(path.name for path in decodings(folder))
        what = f"give one of {inner} in it" if inner else "run stage 12 first"
        raise MlmaError(f"{folder}: has no decoded set; {what}")
    check_alike(folder, found, dump)
    return found
