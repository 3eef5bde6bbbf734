"""From a trained model and audio to text."""

from espnet_mlma.decode.recogniser import Recogniser, Transcript, load

__all__ = ["Recogniser", "Transcript", "load"]
