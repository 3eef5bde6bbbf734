"""Training objectives and masks beyond ESPnet's own."""

from espnet_mlma.model.ctc import MlmaCTCModel
from espnet_mlma.model.specaug import ClipSpecAug

__all__ = ["ClipSpecAug", "MlmaCTCModel"]
