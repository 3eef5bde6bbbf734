"""The sequence operators of a Mamba block, for lengths, both directions and any device.

`selective_scan` and `depthwise_conv` pick a backend by dtype, device and what is installed:

* `cpu`: the C kernels, built at install if there is a compiler; fp32 arithmetic.
* `triton`: kernels for a GPU, compiled at first use.
* `cuda`: mamba-ssm's kernel, if that package is installed; the scan only, and only on request.
* `reference`: plain PyTorch, everywhere, in any dtype; slow.

`backend=` or the environment variable ESPNET_MLMA_SCAN selects a backend instead.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_mlma.scan import cpu, cuda, operators, reference, triton
from espnet_mlma.scan.rows import Direction, Packing, Rows, as_rows, padded_rows, valid_frames

__all__ = [
    "Direction",
    "Rows",
    "available_backends",
    "depthwise_conv",
    "selective_scan",
]

# Backends that take packed rows and both directions in one call.
_PACKED = ("triton", "cpu")
_warned = False


def available_backends() -> list[str]:
    """List the backends that can run here, fastest first."""
    can_run = {"triton": triton.is_available(), "cuda": cuda.is_available(), "cpu": cpu.is_built()}
    return [name for name, here in can_run.items() if here] + ["reference"]


def _pick(x: Tensor, backend: str | None) -> str:
    backend = backend or os.environ.get("ESPNET_MLMA_SCAN")
    if backend is not None:
        if backend not in available_backends():
            raise ValueError(
                f"scan backend {backend!r} is not available here; choose from "
                f"{', '.join(available_backends())}"
            )
        if backend == "cpu" and x.device.type != "cpu":
            raise ValueError(f"scan backend 'cpu' was asked for; the tensors are on {x.device}")
        return backend
    if x.dtype == torch.float64:
        return "reference"
    if x.is_cuda and triton.is_available():
        return "triton"
    if x.device.type == "cpu" and cpu.is_built():
        return "cpu"
    _warn_slow(x.device.type)
    return "reference"


def _warn_slow(device: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        cure = (
            "pip install -U 'triton>=3.3'"
            if device == "cuda"
            else "install gcc or clang and reinstall espnet-mlma"
        )
        warnings.warn(
            f"the selective scan runs in plain PyTorch on {device}, which is slow; {cure}",
            stacklevel=4,
        )


def selective_scan(
    directions: Sequence[Direction],
    z: Tensor | None = None,
    delta_softplus: bool = False,
    lengths: Tensor | None = None,
    rows: Rows | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence of Mamba over each sequence.

    The outputs of two directions are added. Frames at or past a sequence's length are masked; their
    output is zero. State and sums are fp32 (fp64 for fp64 input) for any input dtype.

    Args:
        directions: one direction or two, of the same shapes.
        z: gate, (batch, time, channel); the output is multiplied by silu(z).
        delta_softplus: pass delta through softplus.
        lengths: valid frames of each sequence, (batch,) integer; None: all of them.
        rows: in place of lengths, for sequences packed one after the other in a batch of one: where
            each lies, from `Rows.packed`.
        backend: one of `available_backends()`; None picks.

    Returns:
        The output (batch, time, channel) in u's dtype, and the states after the last frame scanned,
        (direction, sequence, channel, state).

    Raises:
        ValueError: shapes disagree, a length is out of range, the backend is not available, or
            there are not one or two directions.

    Source: Gu and Dao, Mamba, arXiv 2312.00752, algorithm 2.
    """
    if not 1 <= len(directions) <= 2:
        raise ValueError(f"{len(directions)} directions given; a scan takes one or two")
    first = directions[0]
    batch, time, channel = first.u.shape
    is_packed = rows is not None
    rows = _rows(rows, batch, time, lengths, first.u.device)
    sequences = len(rows.first)
    for direction in directions:
        _check_direction(direction, batch, time, channel, first.A.size(1), sequences)
    _expect("z", z, (batch, time, channel))
    backend = _pick(first.u, backend)
    if backend not in _PACKED:
        run = {"reference": reference, "cuda": cuda}[backend].selective_scan
        if not is_packed:
            return _scan_padded(run, directions, z, delta_softplus, lengths)
        packing = _packing(rows)
        padded = [direction.map_frames(packing.unpack) for direction in directions]
        gate = None if z is None else packing.unpack(z)
        out, final_states = _scan_padded(run, padded, gate, delta_softplus, rows.length)
        return packing.pack(out), final_states
    has_state = any(direction.initial_state is not None for direction in directions)
    out, final_states = operators.scan(
        [_as_rows(direction, has_state, sequences) for direction in directions],
        None if z is None else as_rows(z), rows, delta_softplus, backend,
    )  # fmt: skip
    return out.view(batch, time, channel), final_states


def _as_rows(direction: Direction, has_state: bool, sequences: int) -> Direction:
    """Flatten the frames to rows and fill in zeros for the fields that the operators need."""
    u, delta, A, B, C, D, delta_bias, initial_state, reverse = direction.map_frames(as_rows)
    if has_state and initial_state is None:
        initial_state = A.new_zeros(sequences, *A.shape)
    D = A.new_zeros(A.size(0)) if D is None else D
    delta_bias = A.new_zeros(A.size(0)) if delta_bias is None else delta_bias
    return Direction(u, delta, A, B, C, D, delta_bias, initial_state, reverse)


def _scan_padded(
    run,
    directions: Sequence[Direction],
    z: Tensor | None,
    delta_softplus: bool,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Scan with a backend that takes one direction of a padded batch and gates its output."""
    gate = z if len(directions) == 1 else None
    results = [run(direction, gate, delta_softplus, lengths) for direction in directions]
    outs, final_states = zip(*results, strict=True)
    out = functools.reduce(torch.add, outs)
    if z is not None and gate is None:
        batch, time = z.shape[:2]
        valid = valid_frames(lengths, batch, time, z.device)[..., None]
        out = out * F.silu(z.masked_fill(~valid, 0))
    return out, torch.stack(final_states)


def _packing(rows: Rows) -> Packing:
    return Packing.of(rows.length, int(rows.length.max()) if len(rows.length) else 0)


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    left: int | None = None,
    silu: bool = False,
    lengths: Tensor | None = None,
    rows: Rows | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve each channel over time with its own kernel, within each sequence's length.

    Args:
        x: input, (batch, time, channel); frames at or past the length are not read.
        weight: (channel, kernel).
        bias: (channel,).
        left: frames before the current one under the kernel; None: kernel - 1, causal. 0 reads
            later frames only, kernel // 2 is centred.
        silu: apply SiLU to the result.
        lengths: valid frames of each sequence, (batch,) integer; None: all of them.
        rows: in place of lengths, for sequences packed one after the other in a batch of one: where
            each lies, from `Rows.packed`.
        backend: one of `available_backends()`; None picks.

    Returns:
        (batch, time, channel) in x's dtype, zeros past each length.

    Raises:
        ValueError: shapes disagree or a length is out of range.
    """
    batch, time, channel = x.shape
    left = weight.size(1) - 1 if left is None else left
    _expect("weight", weight, (channel, weight.size(1)))
    _expect("bias", bias, (channel,))
    if not 0 <= left < weight.size(1):
        raise ValueError(f"left is {left}; it must lie in the kernel, 0 to {weight.size(1) - 1}")
    is_packed = rows is not None
    rows = _rows(rows, batch, time, lengths, x.device)
    backend = _pick(x, backend)
    if backend in _PACKED:
        bias = weight.new_zeros(channel) if bias is None else bias
        out = operators.conv(as_rows(x), weight, bias, rows, left, silu, backend)
        return out.view(batch, time, channel)
    if not is_packed:
        return reference.depthwise_conv(x, weight, bias, left, silu, lengths)
    packing = _packing(rows)
    out = reference.depthwise_conv(packing.unpack(x), weight, bias, left, silu, rows.length)
    return packing.pack(out)


def _rows(
    rows: Rows | None, batch: int, time: int, lengths: Tensor | None, device: torch.device
) -> Rows:
    if rows is None:
        return padded_rows(batch, time, lengths, device)
    if batch != 1 or lengths is not None:
        raise ValueError("rows are for packed sequences: a batch of one, and no lengths")
    return Rows(*(x.to(device, torch.int64).contiguous() for x in rows))


def _check_direction(
    direction: Direction, batch: int, time: int, channel: int, state: int, sequences: int
) -> None:
    _expect("u", direction.u, (batch, time, channel))
    _expect("delta", direction.delta, (batch, time, channel))
    _expect("A", direction.A, (channel, state))
    _expect("B", direction.B, (batch, time, state))
    _expect("C", direction.C, (batch, time, state))
    _expect("D", direction.D, (channel,))
    _expect("delta_bias", direction.delta_bias, (channel,))
    _expect("initial_state", direction.initial_state, (sequences, channel, state))


def _expect(name: str, x: Tensor | None, shape: tuple[int, ...]) -> None:
    if x is not None and tuple(x.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected {shape}")
