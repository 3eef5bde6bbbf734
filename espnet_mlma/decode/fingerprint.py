"""`decoding.yaml`: what a set was decoded with, and whether several sets were decoded alike.

Stage 12 writes the file into each set's folder. ESPnet's own decoding and earlier versions write
none; their results are taken as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from espnet_mlma import digests
from espnet_mlma.decode.options import Decoding
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml
from espnet_mlma.version import __version__

FILE = "decoding.yaml"
# Keys that must agree among the sets of one table, and their names in errors.
_COMPARED = {
    "checkpoint": "checkpoints",
    "config": "training configurations",
    "language_model_digest": "language models",
    "options": "options",
}


def of_decoding(
    config: Path, model_file: Path, batch_seconds: float, decoding: Decoding
) -> dict[str, Any]:
    """Describe what a set is decoded with: model, language model and options.

    Args:
        config: the training configuration; a calibration beside it counts.
        model_file: the checkpoint.
        batch_seconds: most audio in a batch.
        decoding: options of the search.

    Raises:
        MlmaError: a file cannot be read.
    """
    options = asdict(decoding)
    lm, calibration = options.pop("lm"), config.with_name("calibration.yaml")
    made_with = {
        "model_file": model_file.name,
        "checkpoint": digests.of_file(model_file),
        "config": digests.of_file(config),
        "calibration": digests.of_file(calibration) if calibration.is_file() else None,
        "language_model": lm,
        "language_model_digest": digests.of_file(Path(lm)) if lm else None,
        "options": {"batch_seconds": batch_seconds, **options},
        "version": __version__,
    }
    return json.loads(json.dumps(made_with))  # lists for tuples, as YAML returns them


def of_data(data_dir: Path) -> str:
    """Digest the sounds of a set that stage 3 wrote.

    Raises:
        MlmaError: a table is missing.
    """
    parts = [digests.of_sounds(data_dir / "wav.scp"), digests.of_file(_lengths(data_dir))]
    return digests.of_value(parts)


def read(folder: Path) -> Mapping[str, Any] | None:
    """Read a decoded set's `decoding.yaml`; None: it has none.

    Args:
        folder: the decoded set.

    Raises:
        MlmaError: the file cannot be read.
    """
    path = folder / FILE
    return read_yaml(path, "run stage 12 again") if path.exists() else None


def check_alike(decode_dir: Path, sets: Sequence[str], dump: Path) -> None:
    """Check that sets were decoded by one model, with the same options, from the current sounds.

    Args:
        decode_dir: has a folder for each set.
        sets: their names.
        dump: `dump/raw`; sounds are compared only where stage 3's tables exist.

    Raises:
        MlmaError: they were not.
    """
    found = {name: read(decode_dir / name) for name in sets}
    known = {name: one for name, one in found.items() if one is not None}
    unknown = next((name for name, one in found.items() if one is None), None)
    if known and unknown:
        raise MlmaError(
            f"{decode_dir / unknown}: has no {FILE}, but {min(known)} has one; run stage 12 again"
        )
    for name, one in known.items():
        first, reference = next(iter(known.items()))
        for key, what in _COMPARED.items():
            if one.get(key) != reference.get(key):
                raise MlmaError(
                    f"{decode_dir}: {first} and {name} were decoded with different {what}; "
                    "run stage 12 again"
                )
        if _lengths(dump / name).is_file() and one.get("data") != of_data(dump / name):
            raise MlmaError(
                f"{decode_dir / name}: decoded from other sounds than are in {dump / name} now; "
                "run stage 12 again"
            )


def check_newest(decode_dir: Path, sets: Sequence[str]) -> None:
    """Check that the experiment still has the checkpoint that decoded the sets.

    Args:
        decode_dir: lies in the experiment.
        sets: their names.

    Raises:
        MlmaError: the checkpoint was replaced.
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
