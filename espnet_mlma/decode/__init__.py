"""From a trained model and audio to text."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espnet_mlma.decode.options import Decoding
    from espnet_mlma.decode.recogniser import Recogniser, load
    from espnet_mlma.decode.transcript import Token, Transcript, Word

__all__ = ["Decoding", "Recogniser", "Token", "Transcript", "Word", "load"]

_HOME = {
    "Decoding": "options",
    "Recogniser": "recogniser",
    "Token": "transcript",
    "Transcript": "transcript",
    "Word": "transcript",
    "load": "recogniser",
}


def __getattr__(name: str):
    # Who reads audio should not wait for ESPnet.
    if name not in _HOME:
        raise AttributeError(f"module 'espnet_mlma.decode' has no attribute {name!r}")
    return getattr(importlib.import_module(f"espnet_mlma.decode.{_HOME[name]}"), name)
