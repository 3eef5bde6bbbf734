"""Choose and load the model of a command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_mlma.cli.progress import notice
from espnet_mlma.errors import MlmaError
from espnet_mlma.espnet.imports import import_espnet
from espnet_mlma.loading.paths import check_path

if TYPE_CHECKING:
    from espnet_mlma.decode import Recogniser

# Model of `make demo`, below a checkout.
DEMO = Path("egs2/mlma/asr1/exp/asr_train_asr_conmamba_mini_raw_mini_char")
CHECKOUT = Path(__file__).resolve().parents[2]


def choose(named: str | None) -> str:
    """Choose the model to load.

    Args:
        named: by --model; None: by $MLMA_MODEL, else the model of `make demo`.

    Raises:
        MlmaError: there is no model, or its files are missing.
    """
    if named is None and os.environ.get("MLMA_MODEL") == "":
        raise MlmaError("MLMA_MODEL is empty; name a model, or unset it")
    if name := named or os.environ.get("MLMA_MODEL"):
        check_path(Path(name))
        return name
    for folder in (Path(), CHECKOUT):
        if (folder / DEMO / "config.yaml").is_file():
            return str(folder / DEMO)
    raise MlmaError(
        "no model: give --model, set MLMA_MODEL, or train the demonstration by "
        "`make demo` in a checkout of espnet-mlma"
    )


def inputs(arguments: argparse.Namespace) -> list[str | Path | None]:
    """Return the inputs that --model and --lm name.

    Args:
        arguments: with `model`, and `lm` if the command has it.

    Raises:
        MlmaError: see `choose`.
    """
    name = choose(arguments.model)
    folder = Path(name).parent if Path(name).suffix in (".yaml", ".yml") else None
    return [name, folder, getattr(arguments, "lm", None)]


def load(
    arguments: argparse.Namespace, search: Mapping[str, Any] | None = None, **options: Any
) -> tuple[str, Recogniser]:
    """Load a model by the options of `add_model_options`.

    Args:
        arguments: with `model`, `device` and `precision`.
        search: options of `Decoding`.
        options: more options of `espnet_mlma.load`.

    Returns:
        The model's name and the model.
    """
    name = choose(arguments.model)
    with notice(f"loading {Path(name).name} ..."):  # a wrapped line cannot be erased
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
