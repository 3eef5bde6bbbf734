"""Mamba in one direction or two."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.encoder.conv import DepthwiseConv
from espnet_mlma.scan import selective_scan

BiMambaKind = Literal["shared", "separate", "none"]


class SelectiveBranch(nn.Module):
    """One direction of a Mamba block: short convolution, input-dependent dt, B, C, and the scan.

    Args:
        channels: inner channels (d_inner).
        d_state: states per channel.
        d_conv: frames under the short convolution.
        dt_rank: rank of the step-size projection.
        reverse: run against time, from the last valid frame.

    Source: Gu and Dao, arXiv 2312.00752; the second direction as in Vision Mamba, arXiv 2401.09417.
    """

    def __init__(self, channels: int, d_state: int, d_conv: int, dt_rank: int, reverse: bool):
        super().__init__()
        self.reverse = reverse
        self.sizes = [dt_rank, d_state, d_state]
        # Against time, "causal" means to look at later frames: the kernel then reads ahead.
        self.conv = DepthwiseConv(channels, d_conv, 0 if reverse else None, silu=True)
        self.x_proj = nn.Linear(channels, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(dt_rank, channels)
        self.A_log = nn.Parameter(torch.empty(channels, d_state))
        self.D = nn.Parameter(torch.empty(channels))
        for parameter in (self.A_log, self.D, self.dt_proj.bias):
            parameter._no_weight_decay = True
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Mamba's own initialisation: S4D-real A, dt log-uniform in 1 to 100 ms, D one."""
        self.conv.reset_parameters()
        self.x_proj.reset_parameters()
        with torch.no_grad():
            state = torch.arange(1, self.A_log.size(1) + 1, dtype=torch.float32)
            self.A_log.copy_(state.log().expand_as(self.A_log))
            self.D.fill_(1)
            bound = self.dt_proj.in_features**-0.5
            self.dt_proj.weight.uniform_(-bound, bound)
            dt = torch.empty_like(self.dt_proj.bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            # The inverse of softplus, so that softplus(bias) is dt.
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor, z: Tensor, lengths: Tensor) -> Tensor:
        """x and the gate z, (batch, time, channels); lengths (batch,) in frames."""
        x = self.conv(x, lengths)
        dt, B, C = self.x_proj(x).split(self.sizes, dim=-1)
        return selective_scan(
            x,
            F.linear(dt, self.dt_proj.weight),
            -torch.exp(self.A_log.float()),
            B,
            C,
            self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            lengths=lengths,
            reverse=self.reverse,
        )


class Mamba(nn.Module):
    """A Mamba block whose branches, one per direction, share both projections and the gate.

    The branches' outputs are averaged.

    Args:
        d_model: channels in and out.
        directions: for each branch, whether it runs against time.
        d_state, d_conv, dt_rank: see `SelectiveBranch`.
        expand: inner channels as a multiple of d_model.
        dropout_rate: dropout after the input and after the output projection.
    """

    def __init__(
        self,
        d_model: int,
        directions: tuple[bool, ...],
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dropout_rate: float = 0.0,
    ):
        super().__init__()
        channels = expand * d_model
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.in_proj = nn.Linear(d_model, 2 * channels, bias=False)
        self.branches = nn.ModuleList(
            SelectiveBranch(channels, d_state, d_conv, rank, reverse) for reverse in directions
        )
        self.out_proj = nn.Linear(channels, d_model, bias=False)
        self.dropout = nn.Dropout(dropout_rate)

    def reset_parameters(self) -> None:
        """The library's initialisation of every part."""
        for part in (self.in_proj, *self.branches, self.out_proj):
            part.reset_parameters()

    # ESPnet's `init:` would overwrite A_log and the projections; this hook, which it calls
    # afterwards, puts Mamba's own values back.
    espnet_initialization_fn = reset_parameters

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (batch, time, d_model), lengths (batch,) in frames."""
        x, z = self.dropout(self.in_proj(x)).chunk(2, dim=-1)
        y = sum(branch(x, z, lengths) for branch in self.branches)
        return self.dropout(self.out_proj(y) / len(self.branches))


class SeparateBiMamba(nn.Module):
    """Two whole Mambas, one per direction, averaged; arguments as for `Mamba`."""

    def __init__(self, d_model: int, **mamba_args):
        super().__init__()
        self.ahead = Mamba(d_model, (False,), **mamba_args)
        self.back = Mamba(d_model, (True,), **mamba_args)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (batch, time, d_model), lengths (batch,) in frames."""
        return (self.ahead(x, lengths) + self.back(x, lengths)) / 2


def build_mamba(kind: BiMambaKind, d_model: int, **mamba_args) -> nn.Module:
    """The sequence mixer of a block.

    Args:
        kind: `shared`: two directions with common projections; `separate`: two whole Mambas;
            `none`: one direction, causal.
        d_model: channels.
        mamba_args: see `Mamba`.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "shared":
        return Mamba(d_model, (False, True), **mamba_args)
    if kind == "separate":
        return SeparateBiMamba(d_model, **mamba_args)
    if kind == "none":
        return Mamba(d_model, (False,), **mamba_args)
    raise ValueError(f"bimamba is {kind!r}; choose shared, separate or none")
