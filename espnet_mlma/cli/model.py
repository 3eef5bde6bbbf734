"""Which model a command uses."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_mlma.cli.progress import notice
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.imports import import_espnet

if TYPE_CHECKING:
    from espnet_mlma.decode import Recogniser

# Where `make demo` leaves its model, below a checkout.
DEMO = Path("egs2/mlma/asr1/exp/asr_train_asr_conmamba_mini_raw_mini_char")
CHECKOUT = Path(__file__).resolve().parents[2]


def choose(named: str | None) -> str:
    """The model to load.

    Args:
        named: by --model; None: the environment's, or the one that `make demo` trained.

    Raises:
        MlmaError: none is named and there is none, or files of the one that is are missing.
    """
    if named is None and os.environ.get("MLMA_MODEL") == "":
        raise MlmaError("MLMA_MODEL is empty; name a model, or unset it")
    if name := named or os.environ.get("MLMA_MODEL"):
        from espnet_mlma.loading.checkpoint import check_path

        check_path(Path(name))
        return name
    for folder in (Path(), CHECKOUT):
        if (folder / DEMO / "config.yaml").is_file():
            return str(folder / DEMO)
    raise MlmaError(
        "no model: give --model or set MLMA_MODEL, or train the demonstration's in ten minutes "
        "with `make demo` in a checkout of espnet-mlma"
    )


def inputs(arguments: argparse.Namespace) -> list[str | Path | None]:
    """What the options of `add_model_options`, and --lm, have read.

    Args:
        arguments: with `model`, perhaps with `lm`.

    Raises:
        MlmaError: as of `choose`.
    """
    name = choose(arguments.model)
    folder = Path(name).parent if Path(name).suffix in (".yaml", ".yml") else None
    return [name, folder, getattr(arguments, "lm", None)]


def load(
    arguments: argparse.Namespace, search: Mapping[str, Any] | None = None, **options: Any
) -> tuple[str, Recogniser]:
    """The model's name and the model, by the options of `add_model_options`.

    Args:
        arguments: with `model`, `device` and `precision`.
        search: options of `Decoding`.
        options: more for `espnet_mlma.load`.
    """
    name = choose(arguments.model)
    with notice(f"loading {Path(name).name} ..."):  # a line too long could not be erased
        import_espnet()

        from espnet_mlma.decode import load as load_recogniser
        from espnet_mlma.decode.options import Decoding

        recogniser = load_recogniser(
            name,
            device=arguments.device,
            precision=arguments.precision,
            decoding=Decoding(**search or {}),
            **options,
        )
    return name, recogniser
