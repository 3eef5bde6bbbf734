"""ConMamba encoders, a multilingual recipe and CTC decoding for ESPnet.

Importing the package registers the encoder `conmamba` in ESPnet's tasks (see `plugin`).
"""

import importlib
from typing import TYPE_CHECKING

from espnet_mlma.espnet import plugin
from espnet_mlma.version import __version__

if TYPE_CHECKING:
    from espnet_mlma.decode import Decoding, Recogniser, Transcript, load
    from espnet_mlma.decode.speech2text import Speech2Text
    from espnet_mlma.decode.streaming import StreamingTranscriber
    from espnet_mlma.encoder import ConMambaEncoder

__all__ = [
    "ConMambaEncoder",
    "Decoding",
    "Recogniser",
    "Speech2Text",
    "StreamingTranscriber",
    "Transcript",
    "__version__",
    "load",
]

plugin.install()


_HOME = {
    "ConMambaEncoder": "espnet_mlma.encoder",
    "Decoding": "espnet_mlma.decode",
    "Recogniser": "espnet_mlma.decode",
    "Speech2Text": "espnet_mlma.decode.speech2text",
    "StreamingTranscriber": "espnet_mlma.decode.streaming",
    "Transcript": "espnet_mlma.decode",
    "load": "espnet_mlma.decode",
}


def __dir__():
    return sorted({*globals(), *_HOME})


def __getattr__(name: str):
    # Lazily, because PyTorch and ESPnet take seconds to import.
    if name not in _HOME:
        raise AttributeError(f"module 'espnet_mlma' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
