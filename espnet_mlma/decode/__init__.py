"""From a trained model and audio to text."""

from espnet_mlma.decode.options import Decoding
from espnet_mlma.decode.recogniser import Recogniser, load
from espnet_mlma.decode.transcript import Token, Transcript, Word

__all__ = ["Decoding", "Recogniser", "Token", "Transcript", "Word", "load"]
