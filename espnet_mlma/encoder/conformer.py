"""ESPnet's Conformer behind this package's front-end, for comparisons of the blocks alone."""

from __future__ import annotations

from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from torch import Tensor

from espnet_mlma.encoder.frontend import build_frontend


class ConformerCnn4Encoder(ConformerEncoder):
    """ESPnet's ConformerEncoder with `cnn4` in place of its input layer.

    Args:
        input_size: features per frame.
        output_size: channels of the blocks.
        dropout_rate: dropout of the front-end and, in ESPnet, of the blocks.
        input_layer: ignored, so that a Conformer configuration runs unchanged.
        conformer_args: other arguments of `ConformerEncoder`.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        dropout_rate: float = 0.1,
        input_layer: str = "cnn4",
        **conformer_args,
    ):
        super().__init__(
            output_size,
            output_size=output_size,
            dropout_rate=dropout_rate,
            input_layer=None,
            **conformer_args,
        )
        self.frontend = build_frontend("cnn4", input_size, output_size, dropout_rate)

    def forward(self, xs_pad: Tensor, ilens: Tensor, *args, **kwargs):
        """Encode xs_pad (batch, time, input_size), ilens (batch,); see `ConformerEncoder`."""
        x, lengths = self.frontend(xs_pad[:, : int(ilens.max())], ilens)
        return super().forward(x, lengths, *args, **kwargs)
