"""Loading an ESPnet model strictly: an experiment folder, files, a packed zip, or a hub id."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
import yaml

from espnet_mlma import hub
from espnet_mlma.datadir import seen_from
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml

# Tried in this order in an experiment folder; asr.sh makes the first.
AVERAGES = (
    "valid.cer_ctc.ave.pth",
    "valid.loss.ave.pth",
    "valid.acc.ave.pth",
    "valid.total_count.ave.pth",
    "latest.pth",
)
Task = Literal["asr", "s2t_ctc"]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
# What a packed model needs; the rest of a hub repository is pictures and logs.
_HUB_FILES = ("*.yaml", "*.pth", "*.npz", "*.model")
# Keys that only the configurations of ESPnet's other tasks have.
_OF_OTHER_TASKS = ("src_token_list", "transcript_token_list", "subtask_series")


def build(path: Path, model_file: Path | None = None) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The model in evaluation mode on the CPU, and its configuration.

    Args:
        path: an experiment folder, its config.yaml, a zip packed by ESPnet, such a zip unpacked, or
            the id of a model on the Hugging Face hub, `user/name` or `user/name@revision`, which is
            downloaded into the hub's cache.
        model_file: the checkpoint; None: the one packed with the configuration, or the averaged one
            beside it.

    Raises:
        MlmaError: a file is missing, the model was trained by a task without CTC, the checkpoint's
            keys are not the model's, or the hub cannot be reached.
    """
    with located(path, model_file) as (config, checkpoint):
        return from_files(config, checkpoint)


def check_path(path: Path) -> None:
    """See that a model's files are there; of a hub id nothing is asked.

    Nothing of ESPnet's is imported for it, so that a slip of the pen is said at once.

    Args:
        path: as of `build`.

    Raises:
        MlmaError: a file is missing.
    """
    if _is_zip(path):
        _check_zip(path)
    elif not _is_hub_id(path):
        config, packed = _in_folder(path)
        packed or _averaged(config.parent)


@contextmanager
def located(path: Path, model_file: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """The configuration and the checkpoint; those of a zip are there as long as the context lasts.

    Args:
        path, model_file: as of `build`.

    Raises:
        MlmaError: a file is missing, or the hub cannot be reached.
    """
    if _is_zip(path):
        with tempfile.TemporaryDirectory() as folder:
            config, packed = _unpacked(path, folder)
            yield config, model_file or packed
        return
    if _is_hub_id(path):
        path = _snapshot(path.as_posix())
    config, packed = _in_folder(path)
    yield config, model_file or packed or _averaged(config.parent)


def fingerprint(model_file: Path) -> str:
    """Of a checkpoint, the same wherever it lies and whatever it is called."""
    with model_file.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def task_of(config: dict[str, Any]) -> Task | None:
    """Which of ESPnet's tasks a configuration belongs to; None: one that is not read here.

    Args:
        config: a config.yaml that training wrote.
    """
    if config.get("model") == "espnet_ctc":
        return "s2t_ctc"
    is_other = config.get("preprocessor") == "s2t" or any(key in config for key in _OF_OTHER_TASKS)
    return None if is_other or not {"encoder", "ctc_conf", "token_list"} <= set(config) else "asr"


def _is_hub_id(path: Path) -> bool:
    """Whether a path can only be meant as `user/name`: nothing is there, nor its first folder."""
    is_file = path.suffix in (".yaml", ".yml")
    names_nothing = not path.exists() and not path.parent.is_dir()
    return names_nothing and not is_file and bool(_HUB_ID.fullmatch(path.as_posix()))


def _snapshot(hub_id: str) -> Path:
    repository = hub_id.partition("@")[0]
    remedy = (
        f"where there is a network run `hf download {repository} --local-dir FOLDER` and give "
        f"FOLDER, or copy {_cache_folder(repository)} from there"
    )
    return hub.snapshot(hub_id, _HUB_FILES, "file or folder", remedy)


def _cache_folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _in_folder(path: Path) -> tuple[Path, Path | None]:
    """The configuration, and the checkpoint if a meta.yaml names one."""
    config, meta = path / "config.yaml", path / "meta.yaml"
    if path.is_dir() and meta.is_file() and not config.is_file():
        names = read_yaml(meta, "unpack the model again")
        files = (names.get("yaml_files") or {}) | (names.get("files") or {})
        return _packed({key: path / name for key, name in files.items()}, meta)
    config = config if path.is_dir() else path
    is_yaml = config.suffix in (".yaml", ".yml")
    if not config.is_file() or not is_yaml:
        what = "not a model" if config.is_file() else "no such file"
        raise MlmaError(
            f"{config}: {what}; give an experiment folder, a packed zip or a hub id user/name"
        )
    return config, None


def _unpacked(path: Path, folder: str) -> tuple[Path, Path]:
    """Configuration and checkpoint of a zip, in a folder."""
    _check_zip(path)
    from espnet2.main_funcs.pack_funcs import unpack

    try:
        files = unpack(path, folder, use_cache=False)
    except (BadZipFile, KeyError, OSError, RuntimeError, AssertionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MlmaError(f"{path}: not a whole packed model ({reason}); copy it anew") from None
    config, model = _packed(files, path)
    for file in (config, model):
        if not file.is_file():
            raise MlmaError(f"{path}: {file.name} is not in it; copy it anew")
    return config, model


def _is_zip(path: Path) -> bool:
    return path.suffix == ".zip" and not path.is_dir()


def _check_zip(path: Path) -> None:
    if not path.is_file():
        raise MlmaError(f"{path}: no such file; stage 14 of the recipe packs one")


def _packed(files: dict[str, Any], where: Path) -> tuple[Path, Path]:
    """Configuration and checkpoint among the files of a pack, by the names ESPnet gives them."""
    for task in ("asr", "s2t"):
        config, model = files.get(f"{task}_train_config"), files.get(f"{task}_model_file")
        if config is not None and model is not None:
            return Path(config), Path(model)
    raise MlmaError(f"{where}: packs {sorted(files)}; give a model of ESPnet's asr or s2t task")


def _averaged(folder: Path) -> Path:
    for name in AVERAGES:
        if (folder / name).is_file():
            return folder / name
    raise MlmaError(f"{folder}: none of {', '.join(AVERAGES)}; train first, or name a checkpoint")


def from_files(config: Path, model_file: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """What `build` returns, from the files that `located` found.

    Raises:
        MlmaError: as of `build`.
    """
    for file in (config, model_file):
        if not file.is_file():
            raise MlmaError(f"{file}: no such file; the model was not copied or downloaded whole")
    arguments = read_yaml(config, "give a config.yaml that training wrote")
    task = task_of(arguments)
    if task is None:
        raise MlmaError(
            f"{config}: not of a CTC model; give one that ESPnet's asr or s2t_ctc task trained"
        )
    statistics = (arguments.get("normalize_conf") or {}).get("stats_file")
    if statistics is not None:
        arguments["normalize_conf"]["stats_file"] = str(_statistics(config, statistics))
    arguments["init"] = None  # every parameter comes from the checkpoint
    try:
        model = _task_class(task).build_model(argparse.Namespace(**arguments))
    # As of an encoder that is not installed, or an option of another version.
    except (ValueError, TypeError) as error:
        raise MlmaError(f"{config}: {' '.join(str(error).split())}") from None
    _load_parameters(model, model_file, config)
    for module in model.modules():
        if hasattr(module, "use_flash_attn"):
            module.use_flash_attn = False  # written by training; needs a GPU and half precision
    return model.eval(), arguments


def _task_class(task: Task):
    if task == "asr":
        from espnet2.tasks.asr import ASRTask

        return ASRTask
    from espnet2.tasks.s2t_ctc import S2TTask

    return S2TTask


def _load_parameters(model: torch.nn.Module, model_file: Path, config: Path) -> None:
    # Mapped, a billion parameters are not in memory twice; files of PyTorch before 1.6 cannot be.
    is_mapped = is_zipfile(model_file)
    try:
        state = torch.load(model_file, map_location="cpu", weights_only=True, mmap=is_mapped)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        raise MlmaError(f"{model_file}: not a whole checkpoint; copy it anew") from None
    expected = model.state_dict()
    for key, parameter in expected.items():
        if key in state and state[key].shape != parameter.shape:
            raise MlmaError(
                f"{model_file}: {key!r} is {list(state[key].shape)}, the model's is "
                f"{list(parameter.shape)}; the checkpoint does not belong to {config}"
            )
    result = model.load_state_dict(state, strict=False)
    for kind, keys in (("lacks", result.missing_keys), ("has unknown", result.unexpected_keys)):
        if keys:
            raise MlmaError(
                f"{model_file}: the checkpoint {kind} {len(keys)} keys, the first {keys[0]!r}; "
                f"it does not belong to {config}"
            )


def _statistics(config: Path, relative: str) -> Path:
    """Where a file of the features' statistics lies, once it could be read."""
    path = _beside(config, relative)
    try:
        found = np.load(path)
        for key in getattr(found, "files", ()):
            found[key]  # a zip's members are read, and their sums compared, only now
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error):
        raise MlmaError(f"{path}: not whole statistics of features; copy it anew") from None
    return path


def _beside(config: Path, relative: str) -> Path:
    """A path of the configuration: as written, or below one of the folders above the config.

    Training writes paths relative to the recipe; a model may be loaded from anywhere. A link is
    looked at where it lies, as in the hub's cache, and where it points.
    """
    if Path(relative).exists():
        return Path(relative)
    if found := seen_from(config, Path(relative)):
        return found
    raise MlmaError(f"{config}: {relative} is not there, nor below a folder above the config")
