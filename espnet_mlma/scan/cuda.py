"""mamba-ssm's CUDA kernel, with lengths and the reverse direction added.

The kernel supports neither. A reverse scan reads its input through an index that reverses each
sequence within its own length. Padding is then last in both directions, where a causal scan cannot
leak it. A step size of zero in the padding keeps the final state unchanged.
"""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_mlma.scan.rows import Direction, valid_frames


def is_available() -> bool:
    """Return whether there is a GPU, and mamba-ssm with its Mamba-1 kernel."""
    return torch.cuda.is_available() and importlib.util.find_spec("selective_scan_cuda") is not None


def _reversal(lengths: Tensor, time: int) -> Tensor:
    """Return a (batch, time) index: length - 1 - t for valid frames, t for padding."""
    t = torch.arange(time, device=lengths.device)
    return torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand_as(x))


def selective_scan(
    direction: Direction, z: Tensor | None, delta_softplus: bool, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the output and the final state; see `espnet_mlma.scan.selective_scan`."""
    # In the extra cuda alone.
    from mamba_ssm.ops.selective_scan_interface import (  # pyright: ignore[reportMissingImports]
        selective_scan_fn,
    )

    u, delta, A, B, C, D, delta_bias, initial_state, reverse = direction
    if initial_state is not None:
        raise NotImplementedError("mamba-ssm's kernel takes no initial state; use another backend")
    batch, time, _ = u.shape
    dtype = u.dtype
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta.dtype)
    if delta_softplus:
        delta = F.softplus(delta.float()).to(delta.dtype)
    valid = valid_frames(lengths, batch, time, u.device)[..., None]
    u, delta, B, C = (x.to(dtype).masked_fill(~valid, 0) for x in (u, delta, B, C))
    if lengths is None:
        lengths = torch.full((batch,), time, device=u.device)
    index = _reversal(lengths.to(u.device), time) if reverse else None
    rows = [u, delta, B, C] + ([] if z is None else [z.masked_fill(~valid, 0)])
    if index is not None:
        rows = [_take(x, index) for x in rows]
    columns = [x.transpose(1, 2).contiguous() for x in rows]
    gate = columns[4] if z is not None else None
    y, final = selective_scan_fn(
        *columns[:2], A.float(), *columns[2:4], None if D is None else D.float(), gate,
        return_last_state=True,
    )  # fmt: skip
    y = y.transpose(1, 2)
    if index is not None:
        y = _take(y, index)
    return y.masked_fill(~valid, 0), final
