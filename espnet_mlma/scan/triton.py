"""The selective scan and the depthwise convolution on a GPU, in Triton.

How the work is divided. A program is one warp with one sequence, one block of channels and one
direction. It keeps the state in registers and reads the sequence's own rows, for a reverse
direction from the last to the first. So padding costs nothing, and the host never fetches a length.

Both directions run in one grid: at 32 sequences of 512 channels each alone gives a large GPU one
warp per scheduler, too few to hide the latency of a step, and with fewer sequences every warp
counts. The price is that the directions meet in memory: each writes its output ungated in fp32, and
a pointwise kernel adds, gates and rounds. That moves 16 bytes per row and channel, 0.8 cycles of
one of an H200's multiprocessors, where the 32 exponentials of 16 states take 2. A scan parallel in
time would fill the GPU with one or two sequences, at the price of more arithmetic in every other
case.

The forward pass stores the states before every TILE rows for the backward pass, which recomputes
the others. It first recomputes a tile and stores the state before every GROUP rows in a scratch
buffer that fits in the L2 cache. Then it takes the groups from last to first and recomputes each in
registers. Triton cannot index registers at run time, so the code of a group is unrolled. grad_B and
grad_C are summed over the channels of a block in the kernel and over the blocks by a plain sum: no
atomics, the same bits in every run.
"""

from __future__ import annotations

import os
from functools import cache, wraps
from typing import NamedTuple

import torch
from torch import Tensor

from espnet_mlma.scan.rows import Direction, Rows, dense_rows, tile_rows

# The states stored for the backward pass take 4 bytes * state / TILE per row, channel and
# direction: 2 bytes at 16 states, as much as one bf16 tensor of the layer.
TILE = 32
# Rows whose loads are issued together, and whose states and decays are in registers at a time in
# the backward pass: 4 rows * 2 * 8 elements, which with the rest fill a thread's 255.
GROUP = 4
# From this number of programs on, a thread takes more elements: two programs for every scheduler of
# a GPU with 132 multiprocessors. With fewer, smaller programs shorten a step.
ENOUGH_PROGRAMS = 1024


@cache
def is_available() -> bool:
    """Return whether Triton is installed and has a GPU, or its interpreter, to run on."""
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        return False
    try:
        import triton
    except ImportError:
        return False
    # Kernels take named tuples since 3.3.
    return tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 3)


def _on_its_device(run):
    """Launch on the GPU of the first tensor, which need not be the current one."""

    @wraps(run)
    def guarded(first, *args, **options):
        x = first if isinstance(first, Tensor) else first[0].u
        with torch.cuda.device_of(x):
            return run(first, *args, **options)

    return guarded


class _Strides(NamedTuple):
    """Distance between the rows of a direction's tensors, in elements."""

    u: int
    delta: int
    B: int
    C: int


class _Gradients(NamedTuple):
    """Gradients as the kernels write them, for one direction.

    Args:
        u, delta: (row, channel).
        A: (sequence, channel, state).
        B, C: (block, row, state).
        D, delta_bias: (sequence, channel).
        initial_state: (sequence, channel, state).
        final: read, not written: the gradient of the final state, (sequence, channel, state).
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    delta_bias: Tensor
    initial_state: Tensor | None
    final: Tensor | None


def _constant(x: Tensor) -> Tensor:
    return x.to(torch.float32).contiguous()


def _prepare(directions: list[Direction]) -> tuple[tuple[Direction, ...], tuple[_Strides, ...]]:
    """Convert to what the kernels read: fp32 constants, rows contiguous in the last axis."""
    # `reverse` becomes an integer: Triton compiles a 1 into the kernel, but not True.
    prepared = tuple(
        d.map_frames(dense_rows).map_constants(_constant)._replace(reverse=int(d.reverse))
        for d in directions
    )
    strides = (_Strides(*(x.stride(0) for x in (d.u, d.delta, d.B, d.C))) for d in prepared)
    return prepared, tuple(strides)


def _next_power_of_2(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _shape(channel: int, state: int, sequences: int, count: int, backward: bool) -> dict:
    """Choose the axes of a program's tensors, see `triton_kernels`; count is that of directions.

    At 16 states in the forward pass, a thread of a wide program has all states of one channel, so
    that their sum crosses no lanes. In the backward pass a thread has 4 states of 2 channels, with
    4 lanes over states and 8 over channels: sums over both take 36 lane exchanges a step. 16 states
    of one channel would take 80 for as many elements. With more channels a thread, Triton would
    load them in other threads than those that use them. A thread of a narrow program has 4 states
    of one channel.
    """
    padded = _next_power_of_2(state)

    def shape(states_each: int, channels_each: int) -> dict:
        NL = min(32, max(1, padded // states_each))
        NR = padded // NL
        return {"NR": NR, "CR": min(channels_each, max(1, 16 // NR)), "NL": NL, "CL": 32 // NL}

    wide = shape(4, 2) if backward else shape(16, 1)
    blocks = -(-channel // (wide["CR"] * wide["CL"]))
    return wide if sequences * count * blocks >= ENOUGH_PROGRAMS else shape(4, 1)


def _gate(ys, z, grad_out, out, rows: Rows) -> None:
    from espnet_mlma.scan.triton_kernels import gate_kernel

    n, channel = out.shape
    columns = min(512, _next_power_of_2(channel))
    block = 2048 // columns  # 16 elements a thread: whole 16-byte loads
    sequences = rows.first.numel()
    gate_kernel[(-(-n // block), -(-channel // columns))](
        ys, z, 0 if z is None else z.stride(0),
        grad_out, 0 if grad_out is None else grad_out.stride(0), out,
        *rows, sequences, sequences.bit_length(), n, channel, ROWS=block, COLUMNS=columns,
    )  # fmt: skip


@_on_its_device
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
    from espnet_mlma.scan.triton_kernels import forward_kernel

    u, A = directions[0].u, directions[0].A
    (n, channel), state, sequences = u.shape, A.size(1), rows.first.numel()
    prepared, strides = _prepare(directions)
    count = len(prepared)
    wide = {"dtype": torch.float32, "device": u.device}
    tiles = tile_rows(n, sequences, TILE) if keep else 0
    final = torch.empty(count, sequences, channel, state, **wide)
    starts = torch.empty(count, tiles, channel, state, **wide)
    ys = tuple(torch.empty(n, channel, **wide) for _ in prepared)
    axes = _shape(channel, state, sequences, count, backward=False)
    blocks = -(-channel // (axes["CR"] * axes["CL"]))
    forward_kernel[(sequences, blocks, count)](
        prepared, strides, final.unbind(), starts.unbind(), ys, *rows, channel, state, 1,
        SOFTPLUS=delta_softplus, KEEP=keep, TILE=TILE, GROUP=GROUP, **axes, num_warps=1,
    )  # fmt: skip
    out = torch.empty_like(u, memory_format=torch.contiguous_format)
    _gate(ys, None if z is None else dense_rows(z), None, out, rows)
    return out, final, starts


@_on_its_device
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
    from espnet_mlma.scan.triton_kernels import backward_kernel

    first = directions[0]
    u, A = first.u, first.A
    (n, channel), state, sequences = u.shape, A.size(1), rows.first.numel()
    prepared, strides = _prepare(directions)
    count = len(prepared)
    wide = {"dtype": torch.float32, "device": u.device}
    axes = _shape(channel, state, sequences, count, backward=True)
    blocks = -(-channel // (axes["CR"] * axes["CL"]))
    # Zeros: no program visits the padding.
    grad_u = torch.zeros(count, n, channel, dtype=u.dtype, device=u.device)
    grad_delta = torch.zeros(count, n, channel, dtype=first.delta.dtype, device=u.device)
    grad_B, grad_C = torch.zeros(2, count, blocks, n, state, **wide)
    grad_A = torch.empty(count, sequences, channel, state, **wide)
    grad_D, grad_bias = torch.empty(2, count, sequences, channel, **wide)
    has_state = first.initial_state is not None
    grad_state = torch.empty(count, sequences if has_state else 0, channel, state, **wide)
    if grad_final is not None:
        grad_final = grad_final.to(torch.float32).contiguous()
    grads = tuple(
        _Gradients(
            grad_u[i], grad_delta[i], grad_A[i], grad_B[i], grad_C[i], grad_D[i], grad_bias[i],
            grad_state[i] if has_state else None,
            None if grad_final is None else grad_final[i],
        )
        for i in range(count)
    )  # fmt: skip
    grad_out = dense_rows(grad_out)
    z = None if z is None else dense_rows(z)
    ys = tuple(None if z is None else torch.empty(n, channel, **wide) for _ in prepared)
    elements = axes["NR"] * axes["CR"] * 32
    programs = sequences * blocks * count
    scratch = torch.empty(programs * (TILE // GROUP) * elements, **wide)
    backward_kernel[(sequences, blocks, count)](
        prepared, strides, grads, starts.unbind(), ys, scratch, z, 0 if z is None else z.stride(0),
        grad_out, grad_out.stride(0), *rows, n, channel, state, 1,
        SOFTPLUS=delta_softplus, TILE=TILE, GROUP=GROUP, **axes, num_warps=1,
    )  # fmt: skip
    grad_z = u.new_empty(0, channel)
    if z is not None:
        grad_z = torch.empty_like(z, memory_format=torch.contiguous_format)
        _gate(ys, z, grad_out, grad_z, rows)
    dtypes = [field.dtype for field in first[:7] if field is not None]
    grads = (
        grad_u, grad_delta, grad_A.sum(1), grad_B.sum(1), grad_C.sum(1),
        grad_D.sum(1), grad_bias.sum(1),
    )  # fmt: skip
    return (
        *(grad.to(dtype) for grad, dtype in zip(grads, dtypes, strict=True)),
        grad_state,
        grad_z,
    )


def _convolve(x, weight, bias, grad_out, out, rows: Rows, left: int, silu: bool) -> None:
    from espnet_mlma.scan.triton_kernels import conv_kernel

    n, channel = x.shape
    columns = min(128, _next_power_of_2(channel))
    block = 2048 // columns
    sequences = rows.first.numel()
    conv_kernel[(-(-n // block), -(-channel // columns))](
        x, x.stride(0), weight, bias, grad_out, 0 if grad_out is None else grad_out.stride(0), out,
        *rows, sequences, sequences.bit_length(), n, channel, left,
        KERNEL=weight.size(0), SILU=silu, ROWS=block, COLUMNS=columns,
    )  # fmt: skip


@_on_its_device
def conv_forward(
    x: Tensor, weight: Tensor, bias: Tensor, rows: Rows, left: int, silu: bool
) -> Tensor:
    """Convolve each channel of x (row, channel) with its own kernel; see `operators.conv`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    weight, bias = weight.t().float().contiguous(), bias.float().contiguous()
    _convolve(dense_rows(x), weight, bias, None, out, rows, left, silu)
    return out


@_on_its_device
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
    from espnet_mlma.scan.triton_kernels import conv_weight_kernel

    x, taps = dense_rows(x), weight.t().float().contiguous()
    (n, channel), kernel, sequences = x.shape, taps.size(0), rows.first.numel()
    pre = torch.empty(n, channel, dtype=torch.float32, device=x.device)
    _convolve(x, taps, bias.float().contiguous(), dense_rows(grad_out), pre, rows, left, silu)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    _convolve(pre, taps.flip(0), None, None, grad_x, rows, kernel - 1 - left, False)
    columns, block = min(128, _next_power_of_2(channel)), 16
    steps = min(64, max(1, -(-n // block)))
    blocks = -(-n // (block * steps))
    partial = torch.empty(blocks, kernel, channel, dtype=torch.float32, device=x.device)
    conv_weight_kernel[(blocks, -(-channel // columns), kernel)](
        x, x.stride(0), pre, partial, *rows, sequences, sequences.bit_length(), n, channel, left,
        KERNEL=kernel, STEPS=steps, ROWS=block, COLUMNS=columns,
    )  # fmt: skip
    grad_weight = partial.sum(0).t().contiguous().to(weight.dtype)
    return grad_x, grad_weight, pre.sum(0).to(bias.dtype)
