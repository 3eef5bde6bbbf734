"""Import optional packages where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from espnet_mlma.errors import MlmaError


def require(name: str, package: str | None = None) -> ModuleType:
    """Import an optional module.

    Args:
        name: module name.
        package: package to install for it; None: the extra `sst`.

    Raises:
        MlmaError: the module is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        install = package or '"espnet-mlma[sst]"'
        raise MlmaError(f"no module {name} ({error}); pip install {install}") from None
