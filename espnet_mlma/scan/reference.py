"""Reference versions of the two operators in plain PyTorch: any dtype, differentiable.

The tests compare every other backend with these in fp64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_mlma.scan.rows import Direction, valid_frames


def selective_scan(
    direction: Direction, z: Tensor | None, delta_softplus: bool, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state frame by frame; see `espnet_mlma.scan.selective_scan`.

    The discretisation follows Mamba's code: exp(dt A) for A, dt B (Euler) for B.
    """
    u, delta, A, B, C, D, delta_bias, initial_state, reverse = direction
    batch, time, channel = u.shape
    out_dtype = u.dtype
    wide = torch.promote_types(u.dtype, torch.float32)
    u, delta, A, B, C = (x.to(wide) for x in (u, delta, A, B, C))
    valid = valid_frames(lengths, batch, time, u.device)
    # Padding may hold NaN, so it is replaced, not multiplied by zero.
    u, delta, B, C = (x.masked_fill(~valid[..., None], 0) for x in (u, delta, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(wide)
    if delta_softplus:
        delta = F.softplus(delta)
    h = u.new_zeros(batch, channel, A.size(1)) if initial_state is None else initial_state.to(wide)
    outputs: list[Tensor] = [u.new_zeros(batch, channel)] * time
    for t in reversed(range(time)) if reverse else range(time):
        dt = delta[:, t, :, None]
        moved = torch.exp(dt * A) * h + dt * u[:, t, :, None] * B[:, t, None, :]
        h = torch.where(valid[:, t, None, None], moved, h)
        outputs[t] = (h * C[:, t, None, :]).sum(-1)
    y = torch.stack(outputs, 1) if time else u
    if D is not None:
        y = y + u * D.to(wide)
    if z is not None:
        y = y * F.silu(z.to(wide).masked_fill(~valid[..., None], 0))
    return y.masked_fill(~valid[..., None], 0).to(out_dtype), h


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, left: int, silu: bool, lengths: Tensor | None
) -> Tensor:
    """Convolve each channel with its own kernel; see `espnet_mlma.scan.depthwise_conv`."""
    batch, time, channel = x.shape
    kernel = weight.size(1)
    valid = valid_frames(lengths, batch, time, x.device)[..., None]
    padded = F.pad(x.masked_fill(~valid, 0).transpose(1, 2), (left, kernel - 1 - left))
    y = F.conv1d(
        padded,
        weight[:, None].to(x.dtype),
        None if bias is None else bias.to(x.dtype),
        groups=channel,
    ).transpose(1, 2)
    return (F.silu(y) if silu else y).masked_fill(~valid, 0)
