"""Register the operators in PyTorch: schema, shapes without data, gradients.

`torch.compile` and `torch.export` then keep each operator whole. A backend does the work: a module
with `TILE`, `scan_forward`, `scan_backward`, `conv_forward` and `conv_backward` (see
`espnet_mlma.scan.cpu`). All tensors are rows, see `espnet_mlma.scan.rows`. PyTorch's dispatcher
takes no records, so a schema has a list for each field of `Direction`, with an item for each
direction.
"""

from __future__ import annotations

import importlib
from functools import cache

import torch
from torch import Tensor

from espnet_mlma.scan.rows import Direction, Rows, tile_rows

_INPUTS = (
    "Tensor[] u, Tensor[] delta, Tensor[] A, Tensor[] B, Tensor[] C, Tensor[] D, "
    "Tensor[] delta_bias, Tensor[] initial_state, bool[] reverse, Tensor? z, Tensor first, "
    "Tensor length"
)
_OPTIONS = "bool delta_softplus, str backend"

_library = torch.library.Library("espnet_mlma", "DEF")
_library.define(f"scan({_INPUTS}, {_OPTIONS}, bool keep) -> (Tensor, Tensor, Tensor)")
_library.define(
    f"scan_backward({_INPUTS}, Tensor starts, Tensor grad_out, Tensor? grad_final, {_OPTIONS}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "conv(Tensor x, Tensor weight, Tensor bias, Tensor first, Tensor length, int left, bool silu, "
    "str backend) -> Tensor"
)
_library.define(
    "conv_backward(Tensor x, Tensor weight, Tensor bias, Tensor first, Tensor length, "
    "Tensor grad_out, int left, bool silu, str backend) -> (Tensor, Tensor, Tensor)"
)
_ops = torch.ops.espnet_mlma


def scan(
    directions: list[Direction],
    z: Tensor | None,
    rows: Rows,
    delta_softplus: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Scan one direction or two with a named backend.

    Args:
        directions: with D and delta_bias; with initial_state in all of them or in none.
        z: gate, (row, channel).
        rows: where the sequences lie.
        delta_softplus: pass delta through softplus.
        backend: name of a module of this package.

    Returns:
        The gated sum of the directions (row, channel) in u's dtype, and the states after the last
        row scanned, (direction, sequence, channel, state) fp32.
    """
    if is_plain():
        out, final, _ = _module(backend).scan_forward(
            directions, z, rows, delta_softplus, keep=False
        )
        return out, final
    *fields, initial_state, reverse = (list(field) for field in zip(*directions, strict=True))
    initial_state = [] if initial_state[0] is None else initial_state
    tensors = [x for field in (*fields, initial_state, [z]) for x in field]
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    out, final, _ = _ops.scan(
        *fields, initial_state, reverse, z, *rows, delta_softplus, backend, keep
    )
    return out, final


def conv(
    x: Tensor, weight: Tensor, bias: Tensor, rows: Rows, left: int, silu: bool, backend: str
) -> Tensor:
    """Convolve each channel of x (row, channel) over time with weight (channel, kernel)."""
    if is_plain():
        return _module(backend).conv_forward(x, weight, bias, rows, left, silu)
    return _ops.conv(x, weight, bias, *rows, left, silu, backend)


def is_plain() -> bool:
    """Return whether the call needs neither gradients nor tracing, and can skip the dispatcher."""
    is_tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or is_tracing)


@cache
def _module(backend: str):
    return importlib.import_module(f"espnet_mlma.scan.{backend}")


def _directions(fields) -> list[Direction]:
    *fields, initial_state, reverse = fields
    initial_state = initial_state or [None] * len(reverse)
    return [Direction(*values) for values in zip(*fields, initial_state, reverse, strict=True)]


def _scan(*args):
    *fields, z, first, length, delta_softplus, backend, keep = args
    return _module(backend).scan_forward(
        _directions(fields), z, Rows(first, length), delta_softplus, keep
    )


def _scan_backward(*args):
    *fields, z, first, length, starts, grad_out, grad_final, delta_softplus, backend = args
    return _module(backend).scan_backward(
        _directions(fields), z, Rows(first, length), delta_softplus, starts, grad_out, grad_final
    )


def _conv(x, weight, bias, first, length, left, silu, backend):
    return _module(backend).conv_forward(x, weight, bias, Rows(first, length), left, silu)


def _conv_backward(x, weight, bias, first, length, grad_out, left, silu, backend):
    return _module(backend).conv_backward(
        x, weight, bias, Rows(first, length), grad_out, left, silu
    )


def _scan_shapes(
    u, delta, A, B, C, D, delta_bias, initial_state, reverse, z, first, length, delta_softplus,
    backend, keep,
):  # fmt: skip
    (rows, channel), state, sequences = u[0].shape, A[0].size(1), first.size(0)
    tiles = tile_rows(rows, sequences, _module(backend).TILE) if keep else 0
    return (
        torch.empty_like(u[0], memory_format=torch.contiguous_format),
        A[0].new_empty(len(u), sequences, channel, state, dtype=torch.float32),
        A[0].new_empty(len(u), tiles, channel, state, dtype=torch.float32),
    )


def _scan_backward_shapes(
    u, delta, A, B, C, D, delta_bias, initial_state, reverse, z, first, *rest
):
    grads = [like[0].new_empty(len(like), *like[0].shape) for like in (u, delta, A, B, C, D)]
    grads.append(delta_bias[0].new_empty(len(u), u[0].size(1)))
    states = (first.size(0) if initial_state else 0, *A[0].shape)
    grads.append(A[0].new_empty(len(u), *states, dtype=torch.float32))
    return *grads, u[0].new_empty(0, u[0].size(1)) if z is None else z.new_empty(z.shape)


def _conv_shapes(x, *rest):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _conv_backward_shapes(x, weight, bias, *rest):
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save_scan(ctx, inputs, output):
    *fields, reverse, z, first, length, delta_softplus, backend, keep = inputs
    ctx.reverse, ctx.has_state = reverse, bool(fields[-1])
    ctx.options = (delta_softplus, backend)
    ctx.save_for_backward(*(x for field in fields for x in field), z, first, length, output[2])
    ctx.set_materialize_grads(False)  # else zeros are allocated and read for the states' gradients


def _differentiate_scan(ctx, grad_out, grad_final, _):
    *flat, z, first, length, starts = ctx.saved_tensors
    count = len(ctx.reverse)
    fields = [flat[i : i + count] for i in range(0, len(flat), count)]
    if not ctx.has_state:
        fields.append([])
    if grad_out is None:
        grad_out = torch.zeros_like(fields[0][0])
    *grads, grad_z = _ops.scan_backward(
        *fields, ctx.reverse, z, first, length, starts, grad_out, grad_final, *ctx.options
    )
    grads = [list(grad.unbind()) for grad in grads]
    if not ctx.has_state:
        grads[-1] = []
    # None for reverse, first, length and the options.
    return *grads, None, None if z is None else grad_z, None, None, None, None, None


def _save_conv(ctx, inputs, output):
    *tensors, left, silu, backend = inputs
    ctx.options = (left, silu, backend)
    ctx.save_for_backward(*tensors)


def _differentiate_conv(ctx, grad_out):
    grads = _ops.conv_backward(*ctx.saved_tensors, grad_out, *ctx.options)
    return *grads, None, None, None, None, None


for _name, _run, _shapes in (
    ("scan", _scan, _scan_shapes),
    ("scan_backward", _scan_backward, _scan_backward_shapes),
    ("conv", _conv, _conv_shapes),
    ("conv_backward", _conv_backward, _conv_backward_shapes),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"espnet_mlma::{_name}", _shapes, lib=_library)
for _name, _backward, _save in (
    ("scan", _differentiate_scan, _save_scan),
    ("conv", _differentiate_conv, _save_conv),
):
    torch.library.register_autograd(
        f"espnet_mlma::{_name}", _backward, setup_context=_save, lib=_library
    )
