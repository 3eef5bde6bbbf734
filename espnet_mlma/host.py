"""ESPnet, imported without a word."""

from __future__ import annotations

import importlib
import io
from contextlib import redirect_stderr


def import_espnet() -> None:
    """Import what models are made of; without Flash Attention ESPnet has something to say of it."""
    with redirect_stderr(io.StringIO()):
        importlib.import_module("espnet2.tasks.asr")
