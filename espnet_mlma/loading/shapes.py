"""List the parameters of a checkpoint without PyTorch, whose import takes seconds."""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

from espnet_mlma.errors import MlmaError

# Before 1.6 PyTorch wrote pickles one after another: magic number, version, system, contents.
LEGACY_PICKLES = 4
# Last parts of the names of ESPnet's and PyTorch's tensors that are not trained.
_BUFFERS = frozenset({"melmat", "num_batches_tracked", "running_mean", "running_var"})
_STATISTICS = ("normalize.mean", "normalize.std")


class _Tensor(NamedTuple):
    """A tensor in a file: key of its storage, first element in it, shape."""

    storage: str
    offset: int
    shape: tuple[int, ...]


def read(file: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the trained parameters; their values are not read.

    Nothing in the file is imported or called. A parameter with two names is listed once.

    Args:
        file: a state dict that `torch.save` wrote.

    Returns:
        Name of the parameter -> shape, in the order of the file.

    Raises:
        MlmaError: the file is damaged, or has other contents.
    """
    check_is_file(file)
    try:
        check_stored(file)
        state = _contents(file)
    except Exception as error:  # a damaged pickle may raise any
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise damaged(file, reason) from None
    if not isinstance(state, dict):
        raise MlmaError(
            f"{file}: a {type(state).__name__}, not parameters by name; give a state dict"
        )
    shapes = {}
    known: set[_Tensor] = set()
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise MlmaError(f"{file}: {name!r} is not a plain tensor; give a state dict")
        is_buffer = name in _STATISTICS or name.rpartition(".")[2] in _BUFFERS
        if not is_buffer and tensor not in known:
            known.add(tensor)
            shapes[name] = tensor.shape
    return shapes


def check_is_file(file: Path) -> None:
    """Check that a checkpoint exists.

    Raises:
        MlmaError: it does not, or is a folder.
    """
    if not os.path.isfile(file):
        what = "a folder" if os.path.isdir(file) else "no such file"
        raise MlmaError(f"{file}: {what}; give a checkpoint")


def check_stored(file: Path) -> None:
    """Refuse a tar, a compressed zip and one with wrong checksums.

    `torch.save` writes neither tars nor compressed zips. PyTorch does not compare checksums.

    Raises:
        ValueError: the file is one of these.
    """
    if tarfile.is_tarfile(file):
        raise ValueError("a tar archive")
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("a compressed archive")
            member = archive.testzip()
            if member is not None:
                raise ValueError(f"{member} does not match its checksum")


def damaged(file: Path, reason: str) -> MlmaError:
    """Make the error about a checkpoint that cannot be read."""
    return MlmaError(
        f"{file}: a damaged checkpoint, or one with more than tensors ({reason}); copy it again, "
        "or ask who made it"
    )


def _contents(file: Path) -> Any:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            name = next(n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"])
            with archive.open(name) as stream:
                return _Unpickler(stream).load()
    with open(file, "rb") as stream:
        *_, contents = (_Unpickler(stream).load() for _ in range(LEGACY_PICKLES))
        return contents


class _Unpickler(pickle.Unpickler):
    """Unpickle a state dict, each tensor as a `_Tensor`; refuse all other objects."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; nothing is imported."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _RebuildParameter()
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> str:
        """Return the key of a storage."""
        return str(pid[2])


class _RebuildTensor:
    """Make a `_Tensor` from PyTorch's arguments; no slots, since a pickle may set attributes."""

    __slots__ = ()

    def __call__(self, storage: str, offset: int, shape: tuple[int, ...], *more: object) -> _Tensor:
        if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape)):
            raise ValueError(f"a tensor of shape {shape}")
        return _Tensor(storage, offset, tuple(shape))


class _RebuildParameter:
    """Return the tensor of a parameter."""

    __slots__ = ()

    def __call__(self, tensor: _Tensor, *more: object) -> _Tensor:
        return tensor
