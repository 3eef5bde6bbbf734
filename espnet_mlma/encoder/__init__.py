"""The ConMamba encoder: front-end, blocks of feed-forward, bidirectional Mamba and convolution."""

from espnet_mlma.encoder.conformer import ConformerCnn4Encoder
from espnet_mlma.encoder.conmamba import ConMambaEncoder

__all__ = ["ConMambaEncoder", "ConformerCnn4Encoder"]
