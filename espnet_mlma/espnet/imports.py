"""Import ESPnet quietly, and check the device that a model runs on."""

from __future__ import annotations

import importlib
import io
from contextlib import redirect_stderr

from espnet_mlma.errors import MlmaError


def import_espnet() -> None:
    """Import ESPnet's ASR task; hide its warning that Flash Attention is missing."""
    with redirect_stderr(io.StringIO()):
        importlib.import_module("espnet2.tasks.asr")


def check_device(device: str) -> None:
    """Check that PyTorch can compute on a device.

    Raises:
        MlmaError: PyTorch cannot use a device of this name.
    """
    import torch  # takes a second

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise MlmaError(f"device {device!r}: {reason}; give cpu, or cuda with a GPU") from None
