"""Loading an ESPnet model strictly, from an experiment folder, a pair of files or a packed zip."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_mlma.errors import MlmaError

# Tried in this order in an experiment folder; asr.sh makes the first.
AVERAGES = ("valid.cer_ctc.ave.pth", "valid.loss.ave.pth", "valid.acc.ave.pth", "latest.pth")


def build(path: Path, model_file: Path | None = None) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model in evaluation mode on the CPU, and its configuration.

    Args:
        path: an experiment folder, its config.yaml, or a zip packed by ESPnet.
        model_file: the checkpoint; None: the averaged one beside the configuration.

    Raises:
        MlmaError: a file is missing, or the checkpoint's keys are not the model's.
    """
    if path.suffix == ".zip":
        return _from_zip(path)
    config = path / "config.yaml" if path.is_dir() else path
    if not config.is_file():
        raise MlmaError(f"{config}: no such file; give an experiment folder or a packed zip")
    return _from_files(config, model_file or _averaged(config.parent))


def _from_zip(path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    from espnet2.main_funcs.pack_funcs import unpack

    if not path.is_file():
        raise MlmaError(f"{path}: no such file; stage 14 of the recipe packs one")
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(path, folder, use_cache=False)
        return _from_files(Path(files["asr_train_config"]), Path(files["asr_model_file"]))


def _averaged(folder: Path) -> Path:
    for name in AVERAGES:
        if (folder / name).is_file():
            return folder / name
    raise MlmaError(f"{folder}: none of {', '.join(AVERAGES)}; train first, or name a checkpoint")


def _from_files(config: Path, model_file: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    from espnet2.tasks.asr import ASRTask

    arguments = yaml.safe_load(config.read_text(encoding="utf-8"))
    statistics = (arguments.get("normalize_conf") or {}).get("stats_file")
    if statistics is not None:
        arguments["normalize_conf"]["stats_file"] = str(_beside(config, statistics))
    arguments["init"] = None  # every parameter comes from the checkpoint
    model = ASRTask.build_model(argparse.Namespace(**arguments))
    state = torch.load(model_file, map_location="cpu", weights_only=True)
    result = model.load_state_dict(state, strict=False)
    for kind, keys in (("lacks", result.missing_keys), ("has unknown", result.unexpected_keys)):
        if keys:
            raise MlmaError(
                f"{model_file}: the checkpoint {kind} {len(keys)} keys, the first {keys[0]!r}; "
                f"it does not belong to {config}"
            )
    return model.eval(), arguments


def _beside(config: Path, relative: str) -> Path:
    """A path of the configuration: as written, or below one of the folders above the config.

    Training writes paths relative to the recipe; a model may be loaded from anywhere.
    """
    if Path(relative).exists():
        return Path(relative)
    for parent in config.resolve().parents:
        if (parent / relative).exists():
            return parent / relative
    raise MlmaError(f"{config}: {relative} is not there, nor below a folder above the config")
