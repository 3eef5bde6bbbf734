"""Read files of parameters without running code in them, and check them against a model."""

from __future__ import annotations

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_mlma.errors import MlmaError
from espnet_mlma.loading.shapes import LEGACY_PICKLES, check_is_file, check_stored, damaged


def read(file: Path, foreign: bool = False) -> Any:
    """Read tensors and plain data that `torch.save` wrote, on the CPU.

    PyTorch's restricted unpickler is used: nothing in the file is imported or called. Formats that
    PyTorch reads in other ways (TorchScript, the tar format of 2016) are refused.

    Args:
        file: a zip of `torch.save`, mapped into memory, or a file of PyTorch before 1.6.
        foreign: allow classes of other packages; empty lists replace their objects.

    Raises:
        MlmaError: it cannot be read, or has other contents.
    """
    check_is_file(file)
    try:
        check_stored(file)
        stand_ins = _stand_ins(file) if foreign else []
        with open(file, "rb") as stream, torch.serialization.safe_globals(stand_ins):
            # Mapping avoids a second copy in memory. PyTorch needs a path in UTF-8 for it.
            is_mapped = zipfile.is_zipfile(file) and _is_utf8(file)
            source = file if is_mapped else stream
            return torch.load(source, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # a damaged pickle may raise any
        raise damaged(file, _reason(error)) from None


def check(
    found: Any,
    expected: Mapping[str, Tensor],
    file: Path,
    owner: object,
    ignored: Collection[str] = (),
) -> None:
    """Check that a file's parameters fit a model and are finite.

    Args:
        found: the contents of the file.
        expected: the model's parameters by their names in the file; values are ignored.
        file: their source.
        owner: the model that they must fit, for errors.
        ignored: names in `found` that are not checked.

    Raises:
        MlmaError: a parameter is missing, unknown, of another shape or type, or has NaN or Inf; the
            message names the first.
    """
    if not isinstance(found, Mapping):
        raise MlmaError(
            f"{file}: a {type(found).__name__}, not parameters by name; give a state dict"
        )
    remedy = f"the checkpoint does not belong to {owner}"
    wanted, there = set(expected), set(found) - set(ignored)
    for what, names in (("lacks", wanted - there), ("has unknown", there - wanted)):
        if names:
            first = min(map(str, names))
            raise MlmaError(f"{file}: {what} {len(names)} parameters, first {first!r}; {remedy}")
    for name, parameter in expected.items():
        tensor = found[name]
        if not _is_plain(tensor):
            raise MlmaError(f"{file}: {name!r} is not a plain tensor; {remedy}")
        if tensor.shape != parameter.shape:
            raise MlmaError(
                f"{file}: {name!r} is {list(tensor.shape)}, the model's is "
                f"{list(parameter.shape)}; {remedy}"
            )
        if _kind(tensor) != _kind(parameter):
            raise MlmaError(
                f"{file}: {name!r} is {tensor.dtype}, the model's is {parameter.dtype}; {remedy}"
            )
    check_finite({name: found[name] for name in expected}, file)


def check_finite(parameters: Mapping[str, Tensor], source: object) -> None:
    """Refuse NaN and Inf.

    Args:
        parameters: by name.
        source: of the parameters, for the error.

    Raises:
        MlmaError: a parameter is not finite; the message names the first.
    """
    for name, tensor in parameters.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        # One pass without a copy; one NaN makes both NaN.
        least, most = torch.aminmax(tensor.detach())
        if not (least.isfinite() and most.isfinite()):
            raise MlmaError(
                f"{source}: {name!r} has NaN or Inf; training diverged or the file is damaged: "
                "copy it again, or take an earlier checkpoint"
            )


def _is_plain(tensor: Any) -> bool:
    is_tensor = type(tensor) in (Tensor, torch.nn.Parameter)
    return is_tensor and tensor.layout is torch.strided and tensor.device.type == "cpu"


def _kind(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_complex():
        return "complex"
    return "float" if tensor.is_floating_point() else "integer"


def _is_utf8(file: Path) -> bool:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True


class _StandIn(list):
    """Replace an object of another package: options, meters, an optimizer's state."""

    def __init__(self, *args: Any):
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Ignore the object's attributes."""


def _stand_ins(file: Path) -> list[Any]:
    """Return replacements for the names in a file that PyTorch does not know."""
    if zipfile.is_zipfile(file):
        with open(file, "rb") as stream:
            names = set(torch.serialization.get_unsafe_globals_in_checkpoint(stream))
    else:
        with open(file, "rb") as stream:
            ops = [op for _ in range(LEGACY_PICKLES) for op in pickletools.genops(stream)]
        names = {_modern(str(argument)) for op, argument, _ in ops if op.name == "GLOBAL"}
    others = [(_StandIn, name) for name in names - {"collections.defaultdict"}]
    return [(_new_dict, "collections.defaultdict"), *others]


def _modern(name: str) -> str:
    """Convert a name in a pickle, in the style of Python 2, to the one that PyTorch looks up."""
    module, _, attribute = name.partition(" ")
    if (module, attribute) in NAME_MAPPING:
        module, attribute = NAME_MAPPING[module, attribute]
    return f"{IMPORT_MAPPING.get(module, module)}.{attribute}"


def _new_dict(*args: Any) -> dict[Any, Any]:
    return {}


def _reason(error: Exception) -> str:
    """Return one line of PyTorch's message, without its advice to switch the check off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    unsupported = next((line for line in lines if "unsupported" in line.lower()), None)
    text = unsupported or (lines[0] if lines else type(error).__name__)
    text = text.removeprefix("WeightsUnpickler error: ").partition(" was not an allowed")[0]
    return text.partition(" In PyTorch 2.6")[0][:200].rstrip(".")
