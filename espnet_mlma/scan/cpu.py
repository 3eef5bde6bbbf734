"""The C kernels: fp32 arithmetic, without copies of the rows."""

from __future__ import annotations

import ctypes
import importlib.machinery
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet_mlma.scan.rows import Direction, Rows, dense_rows, tile_rows

_i64, _ptr = ctypes.c_int64, ctypes.c_void_p
_MAX_DIRECTIONS = 2
_NO_MEMORY, _OUT_OF_PLACE = 1, 2  # of native/simd.h


class _Array(ctypes.Structure):
    _fields_ = [("data", _ptr), ("stride", _i64)]


class _Sequences(ctypes.Structure):
    _fields_ = [("rows", _i64), ("count", _i64), ("first", _ptr), ("length", _ptr)]


class _NativeDirection(ctypes.Structure):
    """Mirrors `scan_direction` of native/scan.c, field by field."""

    _fields_ = [
        *((name, _Array) for name in ("u", "delta", "B", "C")),
        *((name, _ptr) for name in ("A", "D", "delta_bias", "initial_state")),
        *((name, _ptr) for name in ("final", "starts", "grad_final")),
        *((name, _Array) for name in ("grad_u", "grad_delta")),
        *((name, _ptr) for name in ("grad_B", "grad_C", "grad_A", "grad_D", "grad_delta_bias")),
        ("grad_initial_state", _ptr),
        ("reverse", _i64),
    ]


class _ScanArgs(ctypes.Structure):
    """Mirrors `scan_args` of native/scan.c, field by field."""

    _fields_ = [
        ("seq", _Sequences),
        *((name, _i64) for name in ("channel", "state", "groups", "threads")),
        *((name, _i64) for name in ("delta_softplus", "direction_count")),
        *((name, _Array) for name in ("z", "out", "grad_out", "grad_z")),
        ("directions", _NativeDirection * _MAX_DIRECTIONS),
    ]


class _ConvArgs(ctypes.Structure):
    """Mirrors `conv_args` of native/conv.c, field by field."""

    _fields_ = [
        ("seq", _Sequences),
        *((name, _i64) for name in ("channel", "kernel", "left", "groups", "threads", "silu")),
        ("x", _Array),
        *((name, _ptr) for name in ("weight", "bias")),
        *((name, _Array) for name in ("out", "grad_out", "grad_x", "pre")),
        *((name, _ptr) for name in ("grad_weight", "grad_bias")),
    ]


def _load_library() -> ctypes.CDLL | None:
    """Load the library built at install; None: it was not built.

    torch is imported first: wheels have no libgomp and use torch's, so that there is one OpenMP
    runtime and one pool of threads.
    """
    # setup.py builds .abi3.so; an older build may lie beside it.
    for suffix in (".abi3.so", *importlib.machinery.EXTENSION_SUFFIXES):
        path = Path(__file__).with_name(f"_native{suffix}")
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.mlma_scan_tile.restype = _i64
            return library
    return None


_library: Any = _load_library()
TILE = _library.mlma_scan_tile() if _library else 0


def is_built() -> bool:
    """Return whether the C extension was compiled at install."""
    return _library is not None


def _rows(x: Tensor) -> Tensor:
    """Apply `dense_rows` in fp32."""
    return dense_rows(x.to(torch.float32))


def _whole(x: Tensor) -> Tensor:
    return x.to(torch.float32).contiguous()


def _array(x: Tensor | None) -> _Array:
    return _Array() if x is None else _Array(x.data_ptr(), x.stride(0))


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _sequences(total: int, rows: Rows) -> _Sequences:
    return _Sequences(total, len(rows.first), rows.first.data_ptr(), rows.length.data_ptr())


def _groups(sequences: int, channel: int, threads: int) -> int:
    """Return channel groups per sequence: enough tasks for all threads if sequences are few."""
    if threads == 1 or sequences >= 2 * threads:
        return 1
    blocks = -(-channel // 16)
    return min(blocks, -(-2 * threads // max(sequences, 1)))


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("the selective scan could not allocate its scratch memory")
    if status == _OUT_OF_PLACE:
        raise ValueError("rows do not fit the input: sequences must follow each other inside it")


def _prepare(direction: Direction) -> Direction:
    """Convert to what the kernels read: fp32, rows contiguous in the last axis."""
    return direction.map_frames(_rows).map_constants(_whole)


def _scan_args(
    directions: list[Direction], z: Tensor | None, rows: Rows, delta_softplus: bool
) -> _ScanArgs:
    total, channel = directions[0].u.shape
    threads = torch.get_num_threads()
    args = _ScanArgs(
        _sequences(total, rows), channel, directions[0].A.size(1),
        _groups(len(rows.first), channel, threads), threads, delta_softplus, len(directions),
        _array(z),
    )  # fmt: skip
    for native, d in zip(args.directions, directions, strict=False):
        native.u, native.delta, native.B, native.C = map(_array, (d.u, d.delta, d.B, d.C))
        native.A, native.D, native.delta_bias = map(_pointer, (d.A, d.D, d.delta_bias))
        native.initial_state, native.reverse = _pointer(d.initial_state), d.reverse
    return args


def scan_forward(
    directions: list[Direction],
    z: Tensor | None,
    rows: Rows,
    delta_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the scan, its final states, and states for the backward pass; see `operators.scan`.

    Args:
        keep: whether a backward pass follows.

    Returns:
        Output (row, channel); final states (direction, sequence, channel, state); states before
        each tile (direction, tile, channel, state), none without `keep`.
    """
    dtype = directions[0].u.dtype
    directions = [_prepare(direction) for direction in directions]
    z = None if z is None else _rows(z)
    args = _scan_args(directions, z, rows, delta_softplus)
    total, sequences = args.seq.rows, args.seq.count
    tiles = tile_rows(total, sequences, TILE) if keep else 0
    out = _empty(total, args.channel)
    final = _empty(args.direction_count, sequences, args.channel, args.state)
    starts = _empty(args.direction_count, tiles, args.channel, args.state)
    args.out = _array(out)
    for i, native in enumerate(args.directions[: args.direction_count]):
        native.final = _pointer(final[i])
        native.starts = _pointer(starts[i]) if keep else None
    _check(_library.mlma_scan_forward(ctypes.byref(args)))
    return out.to(dtype), final, starts


def scan_backward(
    directions: list[Direction],
    z: Tensor | None,
    rows: Rows,
    delta_softplus: bool,
    starts: Tensor,
    grad_out: Tensor,
    grad_final: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the gradients of `scan_forward`, each in the dtype of its tensor.

    Returns:
        Gradients of u, delta, A, B, C, D, delta_bias and initial_state, each with a first axis for
        the directions, and of z. Those of initial_state and z are empty if there is none.
    """
    dtypes = [field.dtype for field in directions[0][:7] if field is not None]
    z_dtype = directions[0].u.dtype if z is None else z.dtype
    directions = [_prepare(direction) for direction in directions]
    z = None if z is None else _rows(z)
    grad_out = _rows(grad_out)
    grad_final = None if grad_final is None else _whole(grad_final)
    args = _scan_args(directions, z, rows, delta_softplus)
    count, total, channel, state = args.direction_count, args.seq.rows, args.channel, args.state
    grad_u, grad_delta = _empty(2, count, total, channel)
    grad_z = _empty(0 if z is None else total, channel)
    # Zeros: the kernel does not touch the rows of padding.
    grad_B, grad_C = _empty(2, count, args.groups, total, state).zero_()
    grad_A, grad_state = _empty(2, count, args.seq.count, channel, state)
    grad_D, grad_bias = _empty(2, count, args.seq.count, channel)
    args.grad_out, args.grad_z = _array(grad_out), _array(grad_z)
    for i, native in enumerate(args.directions[:count]):
        native.starts = _pointer(starts[i])
        native.grad_final = None if grad_final is None else _pointer(grad_final[i])
        native.grad_u, native.grad_delta = _array(grad_u[i]), _array(grad_delta[i])
        native.grad_B, native.grad_C = _pointer(grad_B[i]), _pointer(grad_C[i])
        native.grad_A, native.grad_initial_state = _pointer(grad_A[i]), _pointer(grad_state[i])
        native.grad_D, native.grad_delta_bias = _pointer(grad_D[i]), _pointer(grad_bias[i])
    _check(_library.mlma_scan_backward(ctypes.byref(args)))
    grads = (
        grad_u, grad_delta, grad_A.sum(1), grad_B.sum(1), grad_C.sum(1),
        grad_D.sum(1), grad_bias.sum(1),
    )  # fmt: skip
    return (
        *(grad.to(dtype) for grad, dtype in zip(grads, dtypes, strict=True)),
        _empty(count, 0, channel, state) if directions[0].initial_state is None else grad_state,
        grad_z.to(z_dtype),
    )


def _conv_args(x, weight, bias, rows: Rows, left: int, silu: bool) -> _ConvArgs:
    total, channel = x.shape
    threads = torch.get_num_threads()
    return _ConvArgs(
        _sequences(total, rows), channel, weight.size(0), left,
        _groups(len(rows.first), channel, threads), threads, silu,
        _array(x), _pointer(weight), _pointer(bias),
    )  # fmt: skip


def conv_forward(
    x: Tensor, weight: Tensor, bias: Tensor, rows: Rows, left: int, silu: bool
) -> Tensor:
    """Convolve each channel of x (row, channel) with its own kernel; see `operators.conv`."""
    dtype = x.dtype
    x, weight, bias = _rows(x), _whole(weight.t()), _whole(bias)
    args = _conv_args(x, weight, bias, rows, left, silu)
    out = _empty(*x.shape)
    args.out = _array(out)
    _check(_library.mlma_conv_forward(ctypes.byref(args)))
    return out.to(dtype)


def conv_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    rows: Rows,
    grad_out: Tensor,
    left: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, weight and bias, each in its dtype."""
    dtypes = x.dtype, weight.dtype, bias.dtype
    x, weight, bias, grad_out = _rows(x), _whole(weight.t()), _whole(bias), _rows(grad_out)
    args = _conv_args(x, weight, bias, rows, left, silu)
    grad_x, pre = _empty(2, *x.shape)
    grad_weight = _empty(args.seq.count, *weight.shape).zero_()
    grad_bias = _empty(args.seq.count, args.channel).zero_()
    args.grad_out, args.grad_x, args.pre = map(_array, (grad_out, grad_x, pre))
    args.grad_weight, args.grad_bias = _pointer(grad_weight), _pointer(grad_bias)
    _check(_library.mlma_conv_backward(ctypes.byref(args)))
    grad_kernel = grad_weight.sum(0).t().contiguous()
    return grad_x.to(dtypes[0]), grad_kernel.to(dtypes[1]), grad_bias.sum(0).to(dtypes[2])
