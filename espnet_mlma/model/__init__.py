"""Training objectives beyond ESPnet's own."""

from espnet_mlma.model.ctc import MlmaCTCModel

__all__ = ["MlmaCTCModel"]
