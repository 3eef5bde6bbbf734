"""mamba-ssm's CUDA kernel under this package's contract: lengths and the reverse direction.

The kernel knows neither, so a reverse scan reads its input through an index that turns each
sequence round within its own length. Padding then stands at the end of both directions, where a
causal scan cannot leak it; only the final state needs care, and is obtained with a step size of
zero, under which the state stands still.
"""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_mlma.scan.reference import valid_frames


def is_available() -> bool:
    """Whether a GPU is there and mamba-ssm was built with its Mamba-1 kernel."""
    return torch.cuda.is_available() and importlib.util.find_spec("selective_scan_cuda") is not None


def _turned(lengths: Tensor, time: int) -> Tensor:
    """(batch, time) index: frame length - 1 - t for the valid frames, t for the padding."""
    t = torch.arange(time, device=lengths.device)
    return torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand_as(x))


def selective_scan(
    u, delta, A, B, C, D, z, delta_bias, delta_softplus, lengths, reverse, initial_state
) -> tuple[Tensor, Tensor]:
    """The output and the final state; see `espnet_mlma.scan.selective_scan`."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

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
    index = _turned(lengths.to(u.device), time) if reverse else None
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
