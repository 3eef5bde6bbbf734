"""The C kernels: fp32 arithmetic, without copies of the rows."""

from __future__ import annotations

import ctypes
import importlib.machinery
from pathlib import Path

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


class _Direction(ctypes.Structure):
    """Mirrors `direction` of native/scan.c, field by field."""

    _fields_ = [
        *((name, _Array) for name in ("u", "delta", "B", "C")),
        *((name, _ptr) for name in ("A", "D", "bias", "initial", "final", "starts", "grad_final")),
        *((name, _Array) for name in ("grad_u", "grad_delta")),
        *((name, _ptr) for name in ("grad_B", "grad_C", "grad_A", "grad_D", "grad_bias")),
        ("grad_initial", _ptr),
        ("against_time", _i64),
    ]


class _ScanArgs(ctypes.Structure):
    """Mirrors `scan_args` of native/scan.c, field by field."""

    _fields_ = [
        ("seq", _Sequences),
        *((n, _i64) for n in ("channel", "state", "groups", "threads", "softplus", "directions")),
        *((name, _Array) for name in ("z", "out", "grad_out", "grad_z")),
        ("way", _Direction * _MAX_DIRECTIONS),
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


_library = _load_library()
TILE = _library.mlma_scan_tile() if _library else 0


def is_built() -> bool:
    """Return whether the C extension was compiled at install."""
    return _library is not None


def _rows(x: Tensor | None) -> Tensor | None:
    """Apply `dense_rows` in fp32."""
    return None if x is None else dense_rows(x.to(torch.float32))


def _whole(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.float32).contiguous()


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


def _prepared(way: Direction) -> Direction:
    return Direction(
        _rows(way.u), _rows(way.delta), _whole(way.A), _rows(way.B), _rows(way.C),
        _whole(way.D), _whole(way.delta_bias), _whole(way.initial),
    )  # fmt: skip


def _scan_args(ways, against_time, z, rows: Rows, softplus: bool) -> _ScanArgs:
    total, channel = ways[0].u.shape
    threads = torch.get_num_threads()
    args = _ScanArgs(
        _sequences(total, rows), channel, ways[0].A.size(1),
        _groups(len(rows.first), channel, threads), threads, softplus, len(ways), _array(z),
    )  # fmt: skip
    for place, way, backwards in zip(args.way, ways, against_time, strict=False):
        place.u, place.delta, place.B, place.C = map(_array, (way.u, way.delta, way.B, way.C))
        place.A, place.D, place.bias = map(_pointer, (way.A, way.D, way.delta_bias))
        place.initial, place.against_time = _pointer(way.initial), backwards
    return args


def scan_forward(
    ways: list[Direction],
    against_time: list[bool],
    z: Tensor | None,
    rows: Rows,
    softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the scan, its final states, and states for the backward pass; see `operators.scan`.

    Args:
        keep: whether a backward pass follows.

    Returns:
        Output (row, channel); final states (direction, sequence, channel, state); states before
        each tile (direction, tile, channel, state), none without `keep`.
    """
    dtype = ways[0].u.dtype
    ways, z = [_prepared(way) for way in ways], _rows(z)
    args = _scan_args(ways, against_time, z, rows, softplus)
    total, count = args.seq.rows, args.seq.count
    tiles = tile_rows(total, count, TILE) if keep else 0
    out = _empty(total, args.channel)
    final = _empty(len(ways), count, args.channel, args.state)
    starts = _empty(len(ways), tiles, args.channel, args.state)
    args.out = _array(out)
    for i in range(len(ways)):
        args.way[i].final = _pointer(final[i])
        args.way[i].starts = _pointer(starts[i]) if keep else None
    _check(_library.mlma_scan_forward(ctypes.byref(args)))
    return out.to(dtype), final, starts


def scan_backward(
    ways: list[Direction],
    against_time: list[bool],
    z: Tensor | None,
    rows: Rows,
    softplus: bool,
    starts: Tensor,
    grad_out: Tensor,
    grad_final: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the gradients of `scan_forward`, each in the dtype of its tensor.

    Returns:
        Gradients of u, delta, A, B, C, D, delta_bias and initial, each with a first axis for the
        directions, and of z. Those of initial and z are empty if there is none.
    """
    dtypes = [field.dtype for field in ways[0][:-1]]
    z_dtype = ways[0].u.dtype if z is None else z.dtype
    ways, z, grad_out = [_prepared(way) for way in ways], _rows(z), _rows(grad_out)
    grad_final = _whole(grad_final)
    args = _scan_args(ways, against_time, z, rows, softplus)
    count, total, channel, state = len(ways), args.seq.rows, args.channel, args.state
    grad_u, grad_delta = _empty(2, count, total, channel)
    grad_z = _empty(0 if z is None else total, channel)
    # Zeros: the kernel does not touch the rows of padding.
    grad_B, grad_C = _empty(2, count, args.groups, total, state).zero_()
    grad_A, grad_initial = _empty(2, count, args.seq.count, channel, state)
    grad_D, grad_bias = _empty(2, count, args.seq.count, channel)
    args.grad_out, args.grad_z = _array(grad_out), _array(grad_z)
    for i, place in enumerate(args.way[:count]):
        place.starts = _pointer(starts[i])
        place.grad_final = None if grad_final is None else _pointer(grad_final[i])
        place.grad_u, place.grad_delta = _array(grad_u[i]), _array(grad_delta[i])
        place.grad_B, place.grad_C = _pointer(grad_B[i]), _pointer(grad_C[i])
        place.grad_A, place.grad_initial = _pointer(grad_A[i]), _pointer(grad_initial[i])
        place.grad_D, place.grad_bias = _pointer(grad_D[i]), _pointer(grad_bias[i])
    _check(_library.mlma_scan_backward(ctypes.byref(args)))
    grads = (
        grad_u, grad_delta, grad_A.sum(1), grad_B.sum(1), grad_C.sum(1),
        grad_D.sum(1), grad_bias.sum(1),
    )  # fmt: skip
    return (
        *(grad.to(dtype) for grad, dtype in zip(grads, dtypes, strict=True)),
        _empty(count, 0, channel, state) if ways[0].initial is None else grad_initial,
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
    grads = grad_x, grad_weight.sum(0).t().contiguous(), grad_bias.sum(0)
    return tuple(grad.to(dtype) for grad, dtype in zip(grads, dtypes, strict=True))
