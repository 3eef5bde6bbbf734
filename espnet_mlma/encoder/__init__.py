"""The ConMamba encoder, its stream, and a Conformer with the same front-end."""

from espnet_mlma.encoder.conformer import ConformerCnn4Encoder
from espnet_mlma.encoder.conmamba import ConMambaEncoder
from espnet_mlma.encoder.streaming import EncoderStream

__all__ = ["ConMambaEncoder", "ConformerCnn4Encoder", "EncoderStream"]
