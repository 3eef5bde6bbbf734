"""ConMamba encoders, a multilingual recipe and CTC decoding for ESPnet.

Importing the package registers the encoder `conmamba` in ESPnet's tasks (see `plugin`).
"""

from espnet_mlma import plugin
from espnet_mlma.version import __version__

__all__ = ["Recogniser", "Transcript", "__version__", "load"]

plugin.install()


def __getattr__(name: str):
    # PyTorch and ESPnet are imported when something is loaded, not before.
    if name in ("load", "Recogniser", "Transcript"):
        from espnet_mlma import decode

        return getattr(decode, name)
    raise AttributeError(f"module 'espnet_mlma' has no attribute {name!r}")
