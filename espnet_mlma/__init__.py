"""ConMamba encoders, a multilingual recipe and CTC decoding for ESPnet.

Importing the package registers the encoder `conmamba` in ESPnet's tasks (see `plugin`).
"""

from espnet_mlma import plugin
from espnet_mlma.version import __version__

__all__ = ["__version__"]

plugin.install()
