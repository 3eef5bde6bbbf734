"""Mamba in one direction or two, on packed sequences (see `espnet_mlma.encoder.conv`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_mlma.encoder.conv import DepthwiseConv
from espnet_mlma.encoder.dropout import Dropout
from espnet_mlma.encoder.linear import Linear, linear
from espnet_mlma.scan import Direction, Rows, selective_scan

BiMambaKind = Literal["shared", "separate", "none"]


class SelectiveBranch(nn.Module):
    """Compute the arguments of a scan in one direction: short convolution, then dt, B and C.

    Args:
        channels: inner channels (d_inner).
        d_state: states per channel.
        d_conv: frames under the short convolution.
        dt_rank: rank of the step-size projection.
        reverse: scan backward in time, from the last valid frame.

    Source: Gu and Dao, arXiv 2312.00752; the second direction as in Vision Mamba, arXiv 2401.09417.
    """

    def __init__(self, channels: int, d_state: int, d_conv: int, dt_rank: int, reverse: bool):
        super().__init__()
        self.reverse = reverse
        self.sizes = [dt_rank, d_state, d_state]
        # For a reverse scan the causal side is the later frames, so the kernel reads ahead.
        self.conv = DepthwiseConv(channels, d_conv, 0 if reverse else None, silu=True)
        self.x_proj = Linear(channels, sum(self.sizes), bias=False)
        self.dt_proj = Linear(dt_rank, channels)
        self.A_log = nn.Parameter(torch.empty(channels, d_state))
        self.D = nn.Parameter(torch.empty(channels))
        for parameter in (self.A_log, self.D, self.dt_proj.bias):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as Mamba does: S4D-real A, dt log-uniform in 1 to 100 ms, D one."""
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

    def forward(self, x: Tensor, rows: Rows) -> Direction:
        """Compute the scan's arguments from x (1, frame, channels)."""
        return self._direction(self.conv(x, rows))

    def step(self, x: Tensor, state: Tensor, keep: int) -> tuple[Direction, Tensor]:
        """Compute the scan's arguments for the next piece; see `DepthwiseConv.step`."""
        x, state = self.conv.step(x, state, keep)
        return self._direction(x), state

    def _direction(self, x: Tensor) -> Direction:
        dt, B, C = self.x_proj(x).split(self.sizes, dim=-1)
        delta = linear(dt, self.dt_proj.weight)
        A = -torch.exp(self.A_log.float())
        return Direction(x, delta, A, B, C, self.D, self.dt_proj.bias, reverse=self.reverse)


class MambaState(NamedTuple):
    """State that the forward direction carries between pieces of a sequence.

    Args:
        before: the last inputs of the short convolution, (1, d_conv - 1, channels).
        scan: state of the scan, (1, channels, d_state).
    """

    before: Tensor
    scan: Tensor


class Mamba(nn.Module):
    """A Mamba block whose branches, one per direction, share both projections and the gate.

    The branches' outputs are averaged.

    Args:
        d_model: channels in and out.
        reverse: for each of the one or two branches, whether it scans backward in time.
        d_state, d_conv, dt_rank: see `SelectiveBranch`.
        expand: inner channels as a multiple of d_model.
        dropout_rate: dropout after the input and after the output projection.
    """

    def __init__(
        self,
        d_model: int,
        reverse: tuple[bool, ...],
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dropout_rate: float = 0.0,
    ):
        super().__init__()
        channels = expand * d_model
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.in_proj = Linear(d_model, 2 * channels, bias=False)
        branches = (SelectiveBranch(channels, d_state, d_conv, rank, value) for value in reverse)
        # torch's annotation of a list of modules does not say of which.
        self.branches = cast(Sequence[SelectiveBranch], nn.ModuleList(branches))
        self.out_proj = Linear(channels, d_model, bias=False)
        self.dropout = Dropout(dropout_rate)

    def reset_parameters(self) -> None:
        """Initialise every part with its own defaults."""
        for part in (self.in_proj, *self.branches, self.out_proj):
            part.reset_parameters()

    # ESPnet's `init:` would overwrite A_log and the projections; this hook, which it calls
    # afterwards, puts Mamba's own values back.
    espnet_initialization_fn = reset_parameters

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Mix x (1, frame, d_model) over time; return the same shape."""
        x, z = self._begin(x)
        directions = [branch(x, rows) for branch in self.branches]
        y, _ = selective_scan(directions, z, delta_softplus=True, rows=rows)
        return self._end(y)

    def initial_state(self) -> MambaState | None:
        """Return the state before the first frame; None if no branch scans forward."""
        branch = self.branches[0]
        if branch.reverse:
            return None
        scan = branch.A_log.new_zeros(1, *branch.A_log.shape)
        return MambaState(branch.conv.initial_state(), scan)

    def step(
        self, x: Tensor, state: MambaState | None, keep: int
    ) -> tuple[Tensor, MambaState | None]:
        """Compute the next piece of a sequence; the reverse direction starts at the end of x.

        Args:
            x: the piece and the known frames after it, (1, frame, d_model).
            state: from `initial_state` or the previous step.
            keep: frames of the piece; the next one begins after them.

        Returns:
            (1, frame, d_model), and the state for the next piece.
        """
        x, z = self._begin(x)
        y = 0
        for branch in self.branches:
            if branch.reverse:
                direction, _ = branch.step(x, branch.conv.initial_state(), keep)
                output, _ = selective_scan([direction], delta_softplus=True)
            else:
                assert state is not None  # given for every block with a forward branch
                direction, before = branch.step(x, state.before, keep)
                output, scan = _scan_in_two(direction, state.scan, keep)
                state = MambaState(before, scan)
            y = y + output
        return self._end(y * F.silu(z)), state

    def _begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.dropout(self.in_proj(x)).chunk(2, dim=-1)

    def _end(self, y: Tensor) -> Tensor:
        return self.dropout(self.out_proj(y) / len(self.branches))


def _scan_in_two(direction: Direction, state: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Scan forward from a state; return the output and the state after the first `keep` frames."""
    first = direction.map_frames(lambda x: x[:, :keep])
    rest = direction.map_frames(lambda x: x[:, keep:])
    y, states = selective_scan([first._replace(initial_state=state)], delta_softplus=True)
    if rest.u.size(1):
        last, _ = selective_scan([rest._replace(initial_state=states[0])], delta_softplus=True)
        y = torch.cat([y, last], dim=1)
    return y, states[0]


class SeparateBiMamba(nn.Module):
    """Two whole Mambas, one per direction, averaged; arguments as for `Mamba`."""

    def __init__(self, d_model: int, **mamba_args):
        super().__init__()
        self.ahead = Mamba(d_model, (False,), **mamba_args)
        self.back = Mamba(d_model, (True,), **mamba_args)

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Mix x (1, frame, d_model) over time; return the same shape."""
        return (self.ahead(x, rows) + self.back(x, rows)) / 2

    def initial_state(self) -> MambaState | None:
        """Return the state before the first frame."""
        return self.ahead.initial_state()

    def step(
        self, x: Tensor, state: MambaState | None, keep: int
    ) -> tuple[Tensor, MambaState | None]:
        """Compute the next piece of a sequence; see `Mamba.step`."""
        ahead, state = self.ahead.step(x, state, keep)
        back, _ = self.back.step(x, None, keep)
        return (ahead + back) / 2, state


def build_mamba(kind: BiMambaKind, d_model: int, **mamba_args) -> Mamba | SeparateBiMamba:
    """Build the sequence mixer of a block.

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
