"""The C kernels behind PyTorch's autograd: fp32 arithmetic, strided input read where it lies."""

from __future__ import annotations

import ctypes
import importlib.machinery
from pathlib import Path

import torch
from torch import Tensor

_i64, _i32, _ptr = ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p


class _Array(ctypes.Structure):
    _fields_ = [("data", _ptr), ("batch_stride", _i64), ("time_stride", _i64)]


class _ScanArgs(ctypes.Structure):
    """Mirrors `scan_args` of native/scan.c, field by field."""

    _fields_ = [
        *((name, _i64) for name in ("batch", "time", "channel", "state", "groups", "threads")),
        *((name, _i32) for name in ("softplus", "reverse")),
        ("lengths", _ptr),
        *((name, _Array) for name in ("u", "delta", "z", "B", "C")),
        *((name, _ptr) for name in ("A", "D", "bias", "initial")),
        ("out", _Array),
        *((name, _ptr) for name in ("final", "starts")),
        ("grad_out", _Array),
        ("grad_final", _ptr),
        *((name, _Array) for name in ("grad_u", "grad_delta", "grad_z")),
        *((name, _ptr) for name in ("grad_B", "grad_C", "grad_A")),
        *((name, _ptr) for name in ("grad_D", "grad_bias", "grad_initial")),
    ]


class _ConvArgs(ctypes.Structure):
    """Mirrors `conv_args` of native/conv.c, field by field."""

    _fields_ = [
        *((name, _i64) for name in ("batch", "time", "channel", "kernel", "left", "threads")),
        ("silu", _i32),
        ("lengths", _ptr),
        ("x", _Array),
        *((name, _ptr) for name in ("weight", "bias")),
        *((name, _Array) for name in ("out", "grad_out", "grad_x")),
        *((name, _ptr) for name in ("pre", "grad_weight", "grad_bias")),
    ]


def _load_library() -> ctypes.CDLL | None:
    """The library built at install, or None. torch is imported before it, so that both share one
    OpenMP runtime and its threads."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_native{suffix}")
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.mlma_scan_tile.restype = _i64
            return library
    return None


_library = _load_library()


def is_built() -> bool:
    """Whether the C extension was compiled when the package was installed."""
    return _library is not None


def _rows(x: Tensor) -> Tensor:
    """x itself when its last axis is contiguous, else a copy; fp32."""
    x = x.to(torch.float32)
    return x if x.stride(-1) == 1 else x.contiguous()


def _array(x: Tensor | None) -> _Array:
    return _Array() if x is None else _Array(x.data_ptr(), x.stride(0), x.stride(1))


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _groups(batch: int, channel: int, threads: int) -> int:
    """Channel groups per sequence: enough tasks to keep the threads busy when sequences are few."""
    if threads == 1 or batch >= 2 * threads:
        return 1
    blocks = -(-channel // 16)
    return min(blocks, -(-2 * threads // max(batch, 1)))


def _check(status: int) -> None:
    if status:
        raise MemoryError("the selective scan could not allocate its scratch memory")


# The structs hold addresses, and saved tensors may come back at others (gradient checkpointing
# computes them anew), so forward and backward each build their own.


def _scan_args(u, delta, A, B, C, D, z, bias, initial, lengths, options) -> _ScanArgs:
    batch, time, channel = u.shape
    threads = torch.get_num_threads()
    return _ScanArgs(
        batch, time, channel, A.size(1), _groups(batch, channel, threads), threads,
        *options, _pointer(lengths),
        _array(u), _array(delta), _array(z), _array(B), _array(C),
        _pointer(A), _pointer(D), _pointer(bias), _pointer(initial),
    )  # fmt: skip


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, bias, initial, softplus, reverse, lengths):
        inputs = (u, delta, A, B, C, D, z, bias, initial, lengths)
        ctx.options = (softplus, reverse)
        args = _scan_args(*inputs, ctx.options)
        starts = None
        if any(ctx.needs_input_grad):
            tiles = -(-args.time // _library.mlma_scan_tile())
            starts = u.new_empty(args.batch, tiles, args.channel, args.state)
        out = u.new_empty(u.shape)
        final = u.new_empty(args.batch, args.channel, args.state)
        args.out, args.final, args.starts = _array(out), _pointer(final), _pointer(starts)
        _check(_library.mlma_scan_forward(ctypes.byref(args)))
        ctx.save_for_backward(*inputs, starts)
        return out, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, grad_final):
        *inputs, starts = ctx.saved_tensors
        u, _, _, _, _, D, z, bias, initial, _ = inputs
        args = _scan_args(*inputs, ctx.options)
        args.starts = _pointer(starts)
        batch, time, channel, state = args.batch, args.time, args.channel, args.state
        grad_out, grad_final = _rows(grad_out), _vector(grad_final)
        grad_u, grad_delta = u.new_empty(2, batch, time, channel)
        grad_z = None if z is None else u.new_empty(u.shape)
        # Zeros: the kernel does not touch the rows of padding.
        grad_B, grad_C = u.new_zeros(2, args.groups, batch, time, state)
        grad_A, grad_initial = u.new_empty(2, batch, channel, state)
        grad_D, grad_bias = u.new_empty(2, batch, channel)
        args.grad_out, args.grad_final = _array(grad_out), _pointer(grad_final)
        args.grad_u, args.grad_delta, args.grad_z = map(_array, (grad_u, grad_delta, grad_z))
        args.grad_B, args.grad_C, args.grad_A = map(_pointer, (grad_B, grad_C, grad_A))
        args.grad_D, args.grad_bias = _pointer(grad_D), _pointer(grad_bias)
        args.grad_initial = _pointer(grad_initial)
        _check(_library.mlma_scan_backward(ctypes.byref(args)))
        return (
            grad_u, grad_delta, grad_A.sum(0), grad_B.sum(0), grad_C.sum(0),
            None if D is None else grad_D.sum(0), grad_z,
            None if bias is None else grad_bias.sum(0),
            None if initial is None else grad_initial, None, None, None,
        )  # fmt: skip


def _conv_args(x, weight, bias, lengths, options) -> _ConvArgs:
    left, silu = options
    return _ConvArgs(
        *x.shape, weight.size(0), left, torch.get_num_threads(), silu,
        _pointer(lengths), _array(x), _pointer(weight), _pointer(bias),
    )  # fmt: skip


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, left, silu, lengths):
        ctx.options = (left, silu)
        args = _conv_args(x, weight, bias, lengths, ctx.options)
        out = x.new_empty(x.shape)
        args.out = _array(out)
        _library.mlma_conv_forward(ctypes.byref(args))
        ctx.save_for_backward(x, weight, bias, lengths)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        x, weight, bias, lengths = ctx.saved_tensors
        args = _conv_args(x, weight, bias, lengths, ctx.options)
        grad_out = _rows(grad_out)
        grad_x, pre = x.new_empty(2, *x.shape)
        grad_weight = x.new_zeros(args.batch, *weight.shape)
        grad_bias = x.new_zeros(args.batch, args.channel)
        args.grad_out, args.grad_x, args.pre = _array(grad_out), _array(grad_x), _pointer(pre)
        args.grad_weight, args.grad_bias = _pointer(grad_weight), _pointer(grad_bias)
        _library.mlma_conv_backward(ctypes.byref(args))
        return (
            grad_x, grad_weight.sum(0), None if bias is None else grad_bias.sum(0),
            None, None, None,
        )  # fmt: skip


def _vector(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.to(torch.float32).contiguous()


def selective_scan(
    u, delta, A, B, C, D, z, delta_bias, delta_softplus, lengths, reverse, initial_state
) -> tuple[Tensor, Tensor]:
    """The output and the final state; see `espnet_mlma.scan.selective_scan`."""
    out, final = _SelectiveScan.apply(
        _rows(u), _rows(delta), _vector(A), _rows(B), _rows(C), _vector(D),
        None if z is None else _rows(z), _vector(delta_bias), _vector(initial_state),
        delta_softplus, reverse, None if lengths is None else lengths.to(torch.int64).contiguous(),
    )  # fmt: skip
    return out.to(u.dtype), final


def depthwise_conv(x, weight, bias, left, silu, lengths) -> Tensor:
    """Each channel convolved by its own kernel; see `espnet_mlma.scan.depthwise_conv`."""
    out = _DepthwiseConv.apply(
        _rows(x), weight.to(torch.float32).t().contiguous(), _vector(bias), left, silu,
        None if lengths is None else lengths.to(torch.int64).contiguous(),
    )  # fmt: skip
    return out.to(x.dtype)
