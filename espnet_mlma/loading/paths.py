"""Find the files of a model: an experiment folder, a packed zip, or an id on the hub.

PyTorch and ESPnet are not imported, so that a typo fails at once.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading import hub
from espnet_mlma.loading.packed import META, named_files, unpack

# Tried in this order in an experiment folder; asr.sh writes the first.
AVERAGES = (
    "valid.cer_ctc.ave.pth",
    "valid.loss.ave.pth",
    "valid.acc.ave.pth",
    "valid.total_count.ave.pth",
    "latest.pth",
)

_GIVE_ONE = "give an experiment folder, a packed zip or a hub id user/name"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
# Files of a packed model; the rest of a hub repository is pictures and logs.
_HUB_FILES = ("*.yaml", "*.pth", "*.npz", "*.model")


def check_path(path: Path) -> None:
    """Check that a model's files exist; a hub id is not looked up.

    Args:
        path: as for `checkpoint.build`.

    Raises:
        MlmaError: a file is missing or cannot be accessed.
    """
    if _kind(path) == "zip":
        _check_zip(path)
    elif _kind(path) == "folder":
        config, packed = _in_folder(path)
        if not packed:
            _averaged(config.parent)


@contextmanager
def located(path: Path, model_file: Path | None = None) -> Iterator[tuple[Path, Path]]:
    """Find configuration and checkpoint; files of a zip exist as long as the context lasts.

    Args:
        path, model_file: as for `checkpoint.build`.

    Raises:
        MlmaError: a file is missing or cannot be accessed, or the hub cannot be reached.
    """
    kind = _kind(path)
    if kind == "zip":
        _check_zip(path)
        with tempfile.TemporaryDirectory() as folder:
            config, packed = unpack(path, Path(folder))
            yield config, model_file or packed
        return
    if kind == "hub":
        path = _snapshot(path.as_posix())
    config, packed = _in_folder(path)
    yield config, model_file or packed or _averaged(config.parent)


def _kind(path: Path) -> str:
    """Classify a path as a zip, a hub id or a folder (or its configuration).

    It is a hub id only if neither the path nor its first folder exists.
    """
    try:
        if path.suffix == ".zip" and not path.is_dir():
            return "zip"
        is_there = path.exists() or path.parent.is_dir()
    except (OSError, ValueError) as error:  # no permission, a name too long, NUL in it
        reason = getattr(error, "strerror", None) or error
        raise MlmaError(f"{path}: cannot be accessed ({reason}); {_GIVE_ONE}") from None
    is_hub = not is_there and path.suffix not in (".yaml", ".yml")
    return "hub" if is_hub and _HUB_ID.fullmatch(path.as_posix()) else "folder"


def _snapshot(hub_id: str) -> Path:
    repository = hub_id.partition("@")[0]
    try:
        cached = _cache_folder(repository)
    except ValueError:
        raise MlmaError(f"{hub_id}: no such file, nor a valid hub id; {_GIVE_ONE}") from None
    remedy = (
        f"on a computer with a network run `hf download {repository} --local-dir FOLDER` and give "
        f"FOLDER, or copy {cached} from it"
    )
    return hub.snapshot(hub_id, _HUB_FILES, "file or folder", remedy)


def _cache_folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _in_folder(path: Path) -> tuple[Path, Path | None]:
    """Return the configuration, and the checkpoint if a meta.yaml names one."""
    config, meta = path / "config.yaml", path / META
    if path.is_dir() and os.path.isfile(meta) and not os.path.isfile(config):
        return named_files(meta, path)
    config = config if path.is_dir() else path
    is_yaml = config.suffix in (".yaml", ".yml")
    if not os.path.isfile(config) or not is_yaml:
        what = "not a model" if os.path.exists(config) else "no such file"
        raise MlmaError(f"{config}: {what}; {_GIVE_ONE}")
    return config, None


def _check_zip(path: Path) -> None:
    if not os.path.isfile(path):
        what = "not a file" if os.path.exists(path) else "no such file"
        raise MlmaError(f"{path}: {what}; stage 14 of the recipe makes one")


def _averaged(folder: Path) -> Path:
    for name in AVERAGES:
        if os.path.isfile(folder / name):
            return folder / name
    raise MlmaError(f"{folder}: none of {', '.join(AVERAGES)}; train first, or name a checkpoint")
