"""Load an ESPnet model strictly, from an experiment folder, files, a packed zip or a hub id."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import configuration, tensors
from espnet_mlma.loading.configuration import Task, task_of
from espnet_mlma.loading.paths import located


def build(path: Path, model_file: Path | None = None) -> tuple[Any, dict[str, Any]]:
    """Load a model in evaluation mode on the CPU, and its configuration.

    Args:
        path: an experiment folder, its config.yaml, a zip packed by ESPnet, an unpacked one, or the
            id of a model on the Hugging Face hub, `user/name` or `user/name@revision`, which is
            downloaded into the hub's cache.
        model_file: the checkpoint; None: the packed one, or the averaged one beside the
            configuration.

    Raises:
        MlmaError: a file is missing or damaged, the model is of a task without CTC, the checkpoint
            does not fit the model or is not finite, or the hub cannot be reached.
    """
    with located(path, model_file) as (config, checkpoint):
        return from_files(config, checkpoint)


def from_files(config: Path, model_file: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model from the files that `located` found.

    Returns:
        The model in evaluation mode on the CPU, and its configuration.

    Raises:
        MlmaError: as for `build`.
    """
    for file in (config, model_file):
        if not os.path.isfile(file):
            what = "not a file" if os.path.exists(file) else "no such file"
            raise MlmaError(f"{file}: {what}; copy or download the whole model")
    arguments = configuration.read(config)
    try:
        model = _task_class(task_of(arguments)).build_model(argparse.Namespace(**arguments))
    except Exception as error:  # options of another version and wrong values may raise any
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        reason = f"no option {reason}" if isinstance(error, KeyError) else reason
        raise MlmaError(
            f"{config}: building the model fails ({reason}); take the file of the training"
        ) from error
    expected = model.state_dict()
    state = tensors.read(model_file)
    tensors.check(state, expected, model_file, config)
    model.load_state_dict(state)
    for module in model.modules():
        if hasattr(module, "use_flash_attn"):
            module.use_flash_attn = False  # needs a GPU and half precision
    return model.eval(), arguments


def _task_class(task: Task | None) -> Any:
    if task == "asr":
        from espnet2.tasks.asr import ASRTask

        return ASRTask
    from espnet2.tasks.s2t_ctc import S2TTask

    return S2TTask
