"""The ConMamba encoder: ESPnet's `encoder: conmamba`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.legacy.nets.pytorch_backend.nets_utils import get_activation
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from espnet_mlma.encoder.bimamba import BiMambaKind, MambaState, build_mamba
from espnet_mlma.encoder.conv import ConvModule
from espnet_mlma.encoder.dropout import Dropout
from espnet_mlma.encoder.frontend import build_frontend
from espnet_mlma.encoder.linear import Linear
from espnet_mlma.scan.rows import Packing, Rows

if TYPE_CHECKING:
    from espnet2.asr.ctc import CTC


def _activation(name: str) -> nn.Module:
    return nn.GELU() if name == "gelu" else get_activation(name)


class FeedForward(nn.Sequential):
    """LayerNorm, linear, activation, dropout, linear, dropout."""

    def __init__(self, d_model: int, hidden: int, activation: nn.Module, dropout_rate: float):
        super().__init__(
            nn.LayerNorm(d_model),
            Linear(d_model, hidden),
            activation,
            Dropout(dropout_rate),
            Linear(hidden, d_model),
            Dropout(dropout_rate),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the residual branch for x (..., d_model)."""
        norm, first, activation, *rest = self
        if isinstance(activation, nn.GELU) and isinstance(first, Linear):
            x = first.gelu(norm(x))
        else:
            x = activation(first(norm(x)))
        for part in rest:
            x = part(x)
        return x


class ConMambaBlock(nn.Module):
    """Half a feed-forward, Mamba, convolution, half a feed-forward, LayerNorm.

    Args:
        d_model: channels.
        linear_units: hidden units of the feed-forward layers.
        kernel_size: frames under the convolution module.
        activation_type: `gelu`, or a name ESPnet's `get_activation` knows.
        dropout_rate: dropout of the feed-forward and convolution branches.
        skip_rate: probability of skipping the whole block in training.
        bimamba: see `build_mamba`.
        mamba_args: see `Mamba`.

    Source: Jiang et al., Speech Slytherin, arXiv 2407.09732 (ConMamba).
    """

    def __init__(
        self,
        d_model: int,
        linear_units: int,
        kernel_size: int,
        activation_type: str,
        dropout_rate: float,
        skip_rate: float,
        bimamba: BiMambaKind,
        mamba_args: dict[str, Any],
    ):
        super().__init__()
        activation = _activation(activation_type)
        self.skip_rate = skip_rate
        self.ffn_in = FeedForward(d_model, linear_units, activation, dropout_rate)
        self.mamba_norm = nn.LayerNorm(d_model)
        self.mamba = build_mamba(bimamba, d_model, **mamba_args)
        self.conv = ConvModule(
            d_model, kernel_size, activation, dropout_rate, causal=bimamba == "none"
        )
        self.ffn_out = FeedForward(d_model, linear_units, activation, dropout_rate)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Transform packed x (1, frame, d_model); rows say where each sequence lies."""
        scale = 1.0
        if self.training and self.skip_rate > 0:
            if torch.rand(()).item() < self.skip_rate:
                # Gradients of 0 instead of none: distributed processes wait for each other's.
                return torch.add(x, sum(p.sum() for p in self.parameters()), alpha=0)
            # Rescale, so that the expected output equals that without skipping.
            scale = 1.0 / (1.0 - self.skip_rate)
        x = torch.add(x, self.ffn_in(x), alpha=0.5 * scale)
        x = torch.add(x, self.mamba(self.mamba_norm(x), rows), alpha=scale)
        x = torch.add(x, self.conv(x, rows), alpha=scale)
        return self.norm(torch.add(x, self.ffn_out(x), alpha=0.5 * scale))

    def initial_state(self) -> BlockState:
        """Return the state before the first frame."""
        return BlockState(self.mamba.initial_state(), self.conv.depthwise.initial_state())

    def step(self, x: Tensor, state: BlockState, keep: int) -> tuple[Tensor, BlockState]:
        """Compute the next piece of one sequence; arguments and results as in `Mamba.step`."""
        x = torch.add(x, self.ffn_in(x), alpha=0.5)
        mixed, mamba = self.mamba.step(self.mamba_norm(x), state.mamba, keep)
        x = x + mixed
        convolved, conv = self.conv.step(x, state.conv, keep)
        x = x + convolved
        return self.norm(torch.add(x, self.ffn_out(x), alpha=0.5)), BlockState(mamba, conv)


class BlockState(NamedTuple):
    """State that a block carries between pieces of a sequence.

    Args:
        mamba: state of its Mamba; None if no direction scans forward.
        conv: last inputs of its depthwise convolution, (1, left, d_model).
    """

    mamba: MambaState | None
    conv: Tensor


class ConMambaEncoder(AbsEncoder):
    """Encode speech with convolution-augmented Mamba; the batch does not change an utterance.

    Args:
        input_size: features per frame.
        output_size: channels of the blocks (d_model).
        num_blocks: number of blocks.
        linear_units: hidden units of the feed-forward layers.
        dropout_rate: dropout of front-end, feed-forward and convolution.
        input_layer: front-end, see `build_frontend`.
        cnn_module_kernel: frames under the convolution module, odd.
        activation_type: activation of feed-forward and convolution.
        bimamba: `shared`, `separate`, or `none`, which is causal (the front-end and the
            convolution then look ahead no further than their stride).
        d_state: states per inner channel.
        d_conv: frames under Mamba's short convolution.
        expand: inner channels as a multiple of output_size.
        dt_rank: rank of the step-size projection; None: output_size / 16, rounded up.
        mamba_dropout_rate: dropout after Mamba's input and output projections.
        interctc_layer_idx: 1-based blocks whose output gets an intermediate CTC loss.
        interctc_use_conditioning: feed those CTC posteriors back (ESPnet sets
            `conditioning_layer`).
        stochastic_depth_rate: probability of skipping a block in training, one or one per block.
        gradient_checkpoint_layers: 1-based blocks recomputed in the backward pass; 0 is the
            front-end.

    Raises:
        ValueError: an option is out of range; the message names it.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        num_blocks: int = 18,
        linear_units: int = 1024,
        dropout_rate: float = 0.1,
        input_layer: str = "cnn4",
        cnn_module_kernel: int = 31,
        activation_type: str = "gelu",
        bimamba: BiMambaKind = "shared",
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        mamba_dropout_rate: float = 0.0,
        interctc_layer_idx: Sequence[int] = (),
        interctc_use_conditioning: bool = False,
        stochastic_depth_rate: float | Sequence[float] = 0.0,
        gradient_checkpoint_layers: Sequence[int] = (),
    ):
        super().__init__()
        self._output_size = output_size
        self._is_causal = bimamba == "none"
        skip_rates = _per_block("stochastic_depth_rate", stochastic_depth_rate, num_blocks)
        _check_blocks("interctc_layer_idx", interctc_layer_idx, 1, num_blocks - 1)
        _check_blocks("gradient_checkpoint_layers", gradient_checkpoint_layers, 0, num_blocks)
        self.interctc_layer_idx = list(interctc_layer_idx)
        self.interctc_use_conditioning = interctc_use_conditioning
        self.conditioning_layer: nn.Module | None = None
        self.gradient_checkpoint_layers = frozenset(gradient_checkpoint_layers)
        mamba_args = {
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
            "dt_rank": dt_rank,
            "dropout_rate": mamba_dropout_rate,
        }
        self.frontend = build_frontend(input_layer, input_size, output_size, dropout_rate)
        blocks = (
            ConMambaBlock(
                output_size,
                linear_units,
                cnn_module_kernel,
                activation_type,
                dropout_rate,
                skip_rate,
                bimamba,
                mamba_args,
            )
            for skip_rate in skip_rates
        )
        # torch's annotation of a list of modules does not say of which.
        self.blocks = cast(Sequence[ConMambaBlock], nn.ModuleList(blocks))
        self.after_norm = nn.LayerNorm(output_size, eps=1e-6)

    def output_size(self) -> int:
        """Return the channels of the encoder's output."""
        return self._output_size

    def is_causal(self) -> bool:
        """Return whether the blocks' frames depend on no later frames."""
        return self._is_causal

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: None = None,
        masks: Tensor | None = None,
        ctc: CTC | None = None,
        return_all_hs: bool = False,
        prefix_embeds: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor | tuple[Tensor, list], Tensor, None]:
        """Encode a padded batch.

        Args:
            xs_pad: features, (batch, time, input_size).
            ilens: feature frames of each utterance, (batch,) integer.
            prev_states: unused; ESPnet passes it.
            masks: True on padding, (batch, time); if given, it replaces ilens.
            ctc: the CTC head, for self-conditioning.
            return_all_hs: return the output of every block as well.
            prefix_embeds: vectors inserted before the frames, (batch, n, output_size); the s2t_ctc
                task passes language and task in them.
            memory, memory_mask: the s2t_ctc task's encoded text prompt. ConMamba has no
                cross-attention, so the prompt does not reach the frames.

        Returns:
            Frames (batch, time', output_size), or a pair of them and a list: every block's output
            with `return_all_hs`, else (1-based block, output) for each intermediate CTC; the
            lengths (batch,) in output frames; None.
        """
        lengths = ilens if masks is None else (~masks).sum(1)
        lengths = lengths.to(xs_pad.device, torch.int64)
        # ESPnet may pad beyond the longest utterance; the frames returned must not.
        xs_pad = xs_pad[:, : int(lengths.max())]
        x, lengths = self._run(0, self.frontend, xs_pad, lengths)
        if prefix_embeds is not None:
            x = torch.cat([prefix_embeds.to(x.dtype), x], dim=1)
            lengths = lengths + prefix_embeds.size(1)

        packing = Packing.of(lengths, x.size(1))
        x = packing.pack(x)
        hidden: list[Tensor] = []
        intermediate: list[tuple[int, Tensor]] = []
        for number, block in enumerate(self.blocks, start=1):
            x = self._run(number, block, x, packing.rows)
            if return_all_hs:
                hidden.append(packing.unpack(x))
            x, normed = self.condition(number, x, ctc)
            if normed is not None:
                intermediate.append((number, packing.unpack(normed)))
        x = packing.unpack(self.after_norm(x))
        extra = hidden if return_all_hs else intermediate
        return ((x, extra) if extra else x), lengths, None

    def condition(self, number: int, x: Tensor, ctc: CTC | None) -> tuple[Tensor, Tensor | None]:
        """Apply self-conditioning after a block.

        Args:
            number: number of the block, from 1.
            x: its output, (1, frame, output_size).
            ctc: the CTC head, for self-conditioning.

        Returns:
            Input of the next block, and input of the block's intermediate CTC or None.
        """
        if number not in self.interctc_layer_idx:
            return x, None
        normed = self.after_norm(x)
        if self.interctc_use_conditioning:
            # ESPnet's model has both.
            assert ctc is not None and self.conditioning_layer is not None
            x = x + self.conditioning_layer(ctc.softmax(normed))
        return x, normed

    def _run(self, number: int, module: nn.Module, *args):
        if number in self.gradient_checkpoint_layers and torch.is_grad_enabled():
            return checkpoint(module, *args, use_reentrant=False)
        return module(*args)


def _per_block(name: str, value: float | Sequence[float], num_blocks: int) -> list[float]:
    rates = [value] * num_blocks if isinstance(value, int | float) else list(value)
    if len(rates) != num_blocks:
        raise ValueError(f"{name} has {len(rates)} values for {num_blocks} blocks")
    if not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"{name} must lie in 0 <= rate < 1; got {rates}")
    return [float(rate) for rate in rates]


def _check_blocks(name: str, numbers: Sequence[int], first: int, last: int) -> None:
    wrong = [n for n in numbers if not first <= n <= last]
    if wrong:
        raise ValueError(f"{name} holds {wrong}; blocks are numbered {first} to {last}")
