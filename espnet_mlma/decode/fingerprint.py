"""What a set was decoded with, and whether several were decoded alike.

Stage 12 writes `decoding.yaml` into each set's folder. ESPnet's own decoding and earlier versions
write none; of those nothing is known, and they are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_mlma import digests
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml

FILE = "decoding.yaml"
# What has to be the same for sets in one table, and what to call it.
_COMPARED = {
    "checkpoint": "checkpoints",
    "config": "training configurations",
    "language_model": "language models",
    "options": "options",
}


def of_data(data_dir: Path) -> str:
    """Digest the sounds of a set that stage 3 wrote.

    Raises:
        MlmaError: a table is missing.
    """
    parts = [digests.of_sounds(data_dir / "wav.scp"), digests.of_file(_lengths(data_dir))]
    return digests.of_value(parts)


def read(folder: Path) -> Mapping[str, Any] | None:
    """What a set was decoded with; None: nothing is known.

    Args:
        folder: of the decoded set.

    Raises:
        MlmaError: `decoding.yaml` cannot be read.
    """
    path = folder / FILE
    return read_yaml(path, "run stage 12 again") if path.exists() else None


def check_alike(decode_dir: Path, sets: Sequence[str], dump: Path) -> None:
    """See that sets were decoded by one model, with the same options, from the sounds of today.

    Args:
        decode_dir: has a folder for each set.
        sets: their names.
        dump: `dump/raw`; without the tables of stage 3 in it, sounds are not compared.

    Raises:
        MlmaError: they were not.
    """
    found = {name: read(decode_dir / name) for name in sets}
    known = {name: one for name, one in found.items() if one is not None}
    unknown = next((name for name, one in found.items() if one is None), None)
    if known and unknown:
        raise MlmaError(
            f"{decode_dir / unknown}: no {FILE} says what it was decoded with, but "
            f"{min(known)} has one; run stage 12 again"
        )
    first, *others = known or [None]
    for name in others:
        for key, what in _COMPARED.items():
            if known[first].get(key) != known[name].get(key):
                raise MlmaError(
                    f"{decode_dir}: {first} and {name} were decoded with different {what}; "
                    "run stage 12 again"
                )
    for name, one in known.items():
        if _lengths(dump / name).is_file() and one.get("data") != of_data(dump / name):
            raise MlmaError(
                f"{decode_dir / name}: decoded from other sounds than are in {dump / name} now; "
                "run stage 12 again"
            )


def check_newest(decode_dir: Path, sets: Sequence[str]) -> None:
    """See that the experiment still has the checkpoint that decoded the sets.

    Args:
        decode_dir: lies in the experiment.
        sets: their names.

    Raises:
        MlmaError: there is another checkpoint in its place.
    """
    for name in sets:
        one = read(decode_dir / name) or {}
        checkpoint = decode_dir.absolute().parent / str(one.get("model_file"))
        if checkpoint.is_file() and digests.of_file(checkpoint) != one.get("checkpoint"):
            raise MlmaError(
                f"{decode_dir / name}: decoded with an earlier {checkpoint.name} than is in "
                f"{checkpoint.parent} now; run stage 12 again"
            )


def _lengths(data_dir: Path) -> Path:
    return data_dir / "utt2num_samples"
