"""`python -m espnet_mlma.run` with encoders that train as the published ConMamba does.

    python variants.py -m espnet2.bin.asr_train --encoder conmamba_leaking ...

`conmamba_leaking` ignores the lengths of a batch, in its front-end too: sound leaks into the
padding, and the backward direction starts in it. `conmamba_xavier` overwrites Mamba's
initialisation with Xavier's. Both have the parameters of `conmamba`, which decodes what they have
trained. Only ablation.py uses them.
"""

from __future__ import annotations

import sys

import torch
from espnet2.tasks import asr
from torch import Tensor, nn

from espnet_mlma.encoder import ConMambaEncoder
from espnet_mlma.run import main


class LeakingConMamba(ConMambaEncoder):
    """A ConMamba that takes every utterance of a batch for as long as the longest."""

    def forward(self, xs_pad: Tensor, ilens: Tensor, *args, **kwargs):
        """Encode as `ConMambaEncoder`, over the padding; the lengths returned are the true ones."""
        lengths = ilens.to(xs_pad.device, torch.int64)
        xs_pad = xs_pad[:, : int(lengths.max())]
        full = torch.full_like(lengths, xs_pad.size(1))
        encoded, _, states = super().forward(xs_pad, full, *args, **kwargs)
        for _ in range(2):  # the front-end halves twice
            lengths = (lengths + 1) // 2
        return encoded, lengths, states


class XavierConMamba(ConMambaEncoder):
    """A ConMamba whose parameters of two dimensions or more have Xavier's initialisation."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)


VARIANTS = {"conmamba_leaking": LeakingConMamba, "conmamba_xavier": XavierConMamba}

if __name__ == "__main__":
    asr.encoder_choices.classes.update(VARIANTS)
    main(sys.argv[1:])
