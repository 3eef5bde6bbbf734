"""Training objectives, masks and speech made on the fly, beyond ESPnet's own."""

from espnet_mlma.model.ctc import MlmaCTCModel
from espnet_mlma.model.preprocessor import NonSpeechPreprocessor
from espnet_mlma.model.speaking import SpeakingPreprocessor
from espnet_mlma.model.specaug import ClipSpecAug

__all__ = ["ClipSpecAug", "MlmaCTCModel", "NonSpeechPreprocessor", "SpeakingPreprocessor"]
