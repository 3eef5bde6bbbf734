"""The sequence operators of a Mamba block, for lengths, both directions and any device.

`selective_scan`, `bidirectional_scan` and `depthwise_conv` pick a backend by dtype, device and what
is installed:

* `cpu`: the C kernels, built at install if there is a compiler; fp32 arithmetic.
* `triton`: kernels for a GPU, compiled at first use.
* `cuda`: mamba-ssm's kernel, if that package is installed; the scan only, and only on request.
* `reference`: plain PyTorch, everywhere, in any dtype; slow.

`backend=` or the environment variable ESPNET_MLMA_SCAN selects a backend instead.
"""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_mlma.scan import cpu, cuda, operators, reference, triton
from espnet_mlma.scan.rows import Direction, Packing, Rows, as_rows, padded_rows

__all__ = [
    "Rows",
    "ScanInput",
    "available_backends",
    "bidirectional_scan",
    "depthwise_conv",
    "selective_scan",
]

# Backends that take packed rows and both directions in one call.
_PACKED = ("triton", "cpu")
_warned = False


class ScanInput(NamedTuple):
    """Input of one direction of `bidirectional_scan`; see `selective_scan`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None
    initial_state: Tensor | None = None


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
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    lengths: Tensor | None = None,
    reverse: bool = False,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    rows: Rows | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence of Mamba over each sequence.

    Frames at or past a sequence's length are masked; their output is zero. State and
    sums are fp32 (fp64 for fp64 input) for any input dtype.

    Args:
        u: input, (batch, time, channel).
        delta: step size before bias and softplus, (batch, time, channel).
        A: transition, (channel, state); negative for a state that decays.
        B, C: input and output maps, (batch, time, state).
        D: skip weight, (channel,).
        z: gate, (batch, time, channel); the output is multiplied by silu(z).
        delta_bias: added to delta, (channel,).
        delta_softplus: pass delta through softplus.
        lengths: valid frames of each sequence, (batch,) integer; None: all of them.
        reverse: scan backward in time, from the last valid frame.
        initial_state: state before the first frame scanned, (sequence, channel, state); None:
            zeros. The number of sequences is the batch size, or that of `rows`.
        return_final_state: also return the state after the last frame scanned.
        rows: for sequences packed one after the other in a batch of one: where each lies, as
            `Rows.packed` tells; in place of lengths.
        backend: one of `available_backends()`; None picks.

    Returns:
        The output (batch, time, channel) in u's dtype, and with `return_final_state` the state
        (sequence, channel, state).

    Raises:
        ValueError: shapes disagree, a length is out of range, or the backend is not
            available.

    Source: Gu and Dao, Mamba, arXiv 2312.00752, algorithm 2.
    """
    way = ScanInput(u, delta, A, B, C, D, delta_bias, initial_state)
    out, final = _scan([way], [reverse], z, delta_softplus, lengths, rows, backend)
    return (out, final[0]) if return_final_state else out


def bidirectional_scan(
    ahead: ScanInput,
    back: ScanInput,
    z: Tensor | None = None,
    delta_softplus: bool = False,
    lengths: Tensor | None = None,
    rows: Rows | None = None,
    backend: str | None = None,
) -> Tensor:
    """Add the scans of two directions and gate the sum, in one call that reads the gate once.

    Args:
        ahead: input of the forward scan.
        back: input of the reverse scan, of the same shapes.
        z, delta_softplus, lengths, rows, backend: see `selective_scan`.

    Returns:
        (batch, time, channel) in u's dtype.

    Raises:
        ValueError: see `selective_scan`.
    """
    return _scan([ahead, back], [False, True], z, delta_softplus, lengths, rows, backend)[0]


def _scan(
    ways: list[ScanInput],
    against_time: list[bool],
    z: Tensor | None,
    softplus: bool,
    lengths: Tensor | None,
    rows: Rows | None,
    backend: str | None,
) -> tuple[Tensor, Tensor | list[Tensor]]:
    batch, time, channel = ways[0].u.shape
    is_packed = rows is not None
    rows = _rows(rows, batch, time, lengths, ways[0].u.device)
    for way in ways:
        _check_input(way, batch, time, channel, ways[0].A.size(1), len(rows.first))
    _expect("z", z, (batch, time, channel))
    has_state = any(way.initial_state is not None for way in ways)
    backend = _pick(ways[0].u, backend)
    if backend not in _PACKED:
        run = {"reference": reference, "cuda": cuda}[backend].selective_scan
        if is_packed:
            return _scan_unpacked(run, ways, against_time, z, softplus, rows)
        return _scan_padded(run, ways, against_time, z, softplus, lengths)
    out, final = operators.scan(
        [_direction(way, has_state, len(rows.first)) for way in ways],
        against_time, None if z is None else as_rows(z), rows, softplus, backend,
    )  # fmt: skip
    return out.view(batch, time, channel), final


def _direction(way: ScanInput, has_state: bool, sequences: int) -> Direction:
    u, delta, A, B, C, D, delta_bias, initial = way
    if has_state and initial is None:
        initial = A.new_zeros(sequences, *A.shape)
    return Direction(
        as_rows(u),
        as_rows(delta),
        A,
        as_rows(B),
        as_rows(C),
        A.new_zeros(A.size(0)) if D is None else D,
        A.new_zeros(A.size(0)) if delta_bias is None else delta_bias,
        initial,
    )


def _scan_padded(run, ways, against_time, z, softplus, lengths):
    """Scan with a backend that takes one direction of a padded batch and gates its output."""
    gate = z if len(ways) == 1 else None
    outs, finals = zip(
        *(
            run(*way[:6], gate, way.delta_bias, softplus, lengths, reverse, way.initial_state)
            for way, reverse in zip(ways, against_time, strict=True)
        ),
        strict=True,
    )
    if len(ways) == 1:
        return outs[0], finals
    out = sum(outs)
    if z is not None:
        valid = reference.valid_frames(lengths, *z.shape[:2], z.device)[..., None]
        out = out * F.silu(z.masked_fill(~valid, 0))
    return out, finals


def _scan_unpacked(run, ways, against_time, z, softplus, rows: Rows):
    """Scan packed sequences with a backend that only takes a padded batch."""
    packing = _packing(rows)
    pad = packing.unpack
    padded = [
        way._replace(u=pad(way.u), delta=pad(way.delta), B=pad(way.B), C=pad(way.C)) for way in ways
    ]
    gate = None if z is None else pad(z)
    out, finals = _scan_padded(run, padded, against_time, gate, softplus, rows.length)
    return packing.pack(out), finals


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
        rows: for sequences packed one after the other in a batch of one: where each lies, as
            `Rows.packed` tells; in place of lengths.
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


def _check_input(
    way: ScanInput, batch: int, time: int, channel: int, state: int, sequences: int
) -> None:
    _expect("u", way.u, (batch, time, channel))
    _expect("delta", way.delta, (batch, time, channel))
    _expect("A", way.A, (channel, state))
    _expect("B", way.B, (batch, time, state))
    _expect("C", way.C, (batch, time, state))
    _expect("D", way.D, (channel,))
    _expect("delta_bias", way.delta_bias, (channel,))
    _expect("initial_state", way.initial_state, (sequences, channel, state))


def _expect(name: str, x: Tensor | None, shape: tuple[int, ...]) -> None:
    if x is not None and tuple(x.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected {shape}")
