"""The encoders that are compared, and the matrix products of ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder
from torch import Tensor, nn

from espnet_mlma.decode.precision import prepare_linear_layers
from espnet_mlma.encoder import ConformerCnn4Encoder, ConMambaEncoder

FEATURES = 80
FRAMES_PER_SECOND = 100

_CONFORMER = {
    "output_size": 256,
    "attention_heads": 4,
    "linear_units": 1024,
    "num_blocks": 18,
    "macaron_style": True,
    "rel_pos_type": "latest",
    "pos_enc_layer_type": "rel_pos",
    "selfattention_layer_type": "rel_selfattn",
    "activation_type": "swish",
    "use_cnn_module": True,
    "cnn_module_kernel": 31,
}
# 768 hidden units bring it to the size of the others.
_E_BRANCHFORMER = {
    "output_size": 256,
    "attention_heads": 4,
    "cgmlp_linear_units": 1024,
    "linear_units": 768,
    "num_blocks": 18,
    "use_ffn": True,
    "macaron_ffn": True,
}
_SDPA = {
    "attention_layer_type": "selfattn",
    "pos_enc_layer_type": "abs_pos",
    "use_flash_attn": False,
    "use_sdpa": True,
}

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "ConMamba": lambda: ConMambaEncoder(FEATURES),
    "Conformer": lambda: ConformerEncoder(FEATURES, input_layer="conv2d", **_CONFORMER),
    "E-Branchformer": lambda: EBranchformerEncoder(FEATURES, **_E_BRANCHFORMER),
    "E-Branchformer, SDPA": lambda: EBranchformerEncoder(FEATURES, **_E_BRANCHFORMER | _SDPA),
    "Conformer, our front-end": lambda: ConformerCnn4Encoder(FEATURES, **_CONFORMER),
}


def build(name: str) -> nn.Module:
    """The encoder of 18 layers of 256 with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return BUILDERS[name]().eval()


def conmamba(precision: str = "float32") -> nn.Module:
    """ConMamba as `espnet_mlma.load` leaves it."""
    encoder = build("ConMamba")
    prepare_linear_layers(encoder, precision)
    return encoder


def runner(encoder: nn.Module, x: Tensor, lengths: Tensor) -> Callable[[], Tensor]:
    """A call that encodes, without gradients."""

    def run():
        with torch.inference_mode():
            return encoder(x, lengths)[0]

    return run


def batch(seconds: float, utterances: int = 1) -> tuple[Tensor, Tensor]:
    """Random features of so many utterances, and their lengths in frames."""
    frames = round(seconds * FRAMES_PER_SECOND)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(utterances, frames, FEATURES, generator=generator)
    return x, torch.full((utterances,), frames)


def products_of(
    encoder: ConMambaEncoder, x: Tensor, lengths: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """The operands of every matrix product in one pass of ConMamba, in order.

    All linear layers, and the step-size projection, whose layer is not called as a module. The
    front-end's convolutions do not count.
    """
    found: list[tuple[Tensor, Tensor]] = []

    def note(weight: Tensor, rows: int) -> None:
        found.append((torch.randn(rows, weight.size(1)), weight.detach().t()))

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        rows = inputs[0].numel() // inputs[0].size(-1)
        note(module.weight, rows)
        if id(module) in dt_proj:
            note(dt_proj[id(module)].weight, rows)

    dt_proj = {
        id(branch.x_proj): branch.dt_proj
        for block in encoder.blocks
        for branch in block.mamba.branches
    }
    handles = [m.register_forward_hook(hook) for m in encoder.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        encoder(x, lengths)
    for handle in handles:
        handle.remove()
    return found
