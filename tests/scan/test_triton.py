"""The Triton kernels give the numbers of the reference in fp64, forward and backward.

Without a GPU the tests run under Triton's interpreter, in a process of its own, because Triton
reads TRITON_INTERPRET on import. There a last test compiles the kernels for a GPU, because the
interpreter accepts more than the compiler.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from espnet_mlma.scan import reference, triton
from espnet_mlma.scan.rows import Direction, Rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INSTALLED = importlib.util.find_spec("triton") is not None
runs_here = pytest.mark.skipif(
    not triton.is_available(), reason="no GPU: run by test_in_the_interpreter"
)
without_gpu = pytest.mark.skipif(
    not INSTALLED or triton.is_available(), reason="no Triton, or run in this process"
)

# For each sequence first row and length, and the rows in all; a tile is 32 rows.
ONE_ROW = ([0], [1], 1)
AT_A_TILE = ([0, 32], [32, 33], 65)  # packed
PADDED = ([0, 9, 18], [9, 0, 7], 27)
GAPS = ([2, 5, 5], [3, 0, 34], 41)  # padding at both ends
NOTHING = ([0, 0], [0, 0], 0)


def make_inputs(lengths, rows, channel, state, reverse, z, initial, dtype=torch.float32):
    """Make directions and a gate; their rows are slices of wider tensors, as in the encoder."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def direction(reverse):
        u, delta = normal(rows, channel + 3).to(dtype), normal(rows, 2 * channel).to(dtype)
        B, C = normal(rows, 1 + 2 * state).to(dtype)[:, 1:].split(state, 1)
        A = -0.1 - 4 * torch.rand(channel, state, generator=generator, dtype=torch.float64)
        start = normal(len(lengths), channel, state) if initial else None
        constants = normal(channel), 0.1 * normal(channel), start
        made = Direction(u[:, 3:], delta[:, channel:], A, B, C, *constants, reverse)
        return made.map_constants(Tensor.float)

    gate = normal(rows, 2 * channel).to(dtype)[:, channel:] if z else None
    return [direction(value) for value in reverse], gate


def to(device, *tensors):
    """Copy to a device, with the same strides."""
    return [x if x is None else x.to(device) for x in tensors]


def map_tensors(function, direction):
    return direction.map_frames(function).map_constants(function)


def expect(directions, z, firsts, lengths, softplus, grad_out, grad_finals):
    """Compute what `scan_forward` and `scan_backward` should return, by sequence in fp64."""
    leaves = [map_tensors(lambda x: x.double().requires_grad_(), d) for d in directions]
    gate = None if z is None else z.double().requires_grad_()
    out = torch.zeros(grad_out.shape, dtype=torch.float64)
    finals = [[] for _ in leaves]
    for i, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
        here = slice(first, first + length)
        for d, states in zip(leaves, finals, strict=True):
            alone = d.map_frames(lambda x, here=here: x[None, here])
            if d.initial_state is not None:
                alone = alone._replace(initial_state=d.initial_state[i, None])
            y, state = reference.selective_scan(alone, None, softplus, None)
            out = out.index_add(0, torch.arange(first, first + length), y[0])
            states.append(state[0])
    if gate is not None:
        out = out * F.silu(gate.nan_to_num())
    finals = [torch.stack(states) for states in finals]
    goal = (out * grad_out.double().nan_to_num()).sum()
    for final, grad in zip(finals, grad_finals, strict=True):
        goal = goal + (0 if grad is None else (final * grad).sum())
    if goal.requires_grad:
        goal.backward()

    def gradient(x):
        return None if x is None else torch.zeros_like(x) if x.grad is None else x.grad

    grads = [tuple(gradient(x) for x in d[:-1]) for d in leaves]
    return out.detach(), [f.detach() for f in finals], grads, gradient(gate)


def run(directions, z, firsts, lengths, softplus, grad_out, grad_finals):
    directions = [map_tensors(lambda x: x.to(DEVICE), d) for d in directions]
    (z,) = to(DEVICE, z)
    rows = Rows(*to(DEVICE, torch.tensor(firsts), torch.tensor(lengths)))
    out, final, starts = triton.scan_forward(directions, z, rows, softplus, True)
    given = [g for g in grad_finals if g is not None]
    grad_final = torch.zeros_like(final) if given else None
    for i, grad in enumerate(grad_finals):
        if grad is not None:
            grad_final[i] = grad
    *grads, grad_z = triton.scan_backward(
        directions, z, rows, softplus, starts, grad_out.to(DEVICE), grad_final
    )
    assert out.dtype == directions[0].u.dtype
    by_direction = []
    for i, direction in enumerate(directions):
        gradients = [
            g[i].cpu() if g[i].numel() or x is not None else None
            for g, x in zip(grads, direction[:-1], strict=True)
        ]
        for x, gradient in zip(direction[:-1], gradients, strict=True):
            assert (x is None) == (gradient is None)
            assert x is None or (x.dtype, x.shape) == (gradient.dtype, gradient.shape)
        by_direction.append(tuple(gradients))
    return out.cpu(), list(final.cpu()), by_direction, None if z is None else grad_z.cpu()


def assert_close(actual, expected, name="", relative=0.0):
    if isinstance(expected, (list, tuple)):
        for i, pair in enumerate(zip(actual, expected, strict=True)):
            assert_close(*pair, f"{name} {i}", relative)
    elif expected is not None and expected.numel():
        scale = max(1.0, expected.abs().max().item())
        excess = (actual.double() - expected).abs() - relative * expected.abs()
        assert excess.max() <= 5e-6 * scale, f"{name}: {excess.max()} at scale {scale}"


def check(sequences, channel, state, reverse, z, initial, softplus=True, dtype=torch.float32):
    firsts, lengths, rows = sequences
    directions, gate = make_inputs(lengths, rows, channel, state, reverse, z, initial, dtype)
    generator = torch.Generator().manual_seed(1)
    grad_out = torch.randn(rows, channel, generator=generator).to(dtype)
    # One direction's final state matters, a second one's does not.
    grad_finals = [torch.randn(len(firsts), channel, state, generator=generator), None]
    valid = torch.zeros(rows, dtype=torch.bool)
    for first, length in zip(firsts, lengths, strict=True):
        valid[first : first + length] = True
    for x in (*(x for d in directions for x in (d.u, d.delta, d.B, d.C)), gate, grad_out):
        if x is not None:
            x[~valid] = float("nan")
    grad_finals = grad_finals[: len(reverse)] if initial else [None] * len(reverse)
    args = (directions, gate, firsts, lengths, softplus, grad_out, grad_finals)
    # The results of 16-bit input are rounded to it. The interpreter truncates instead, which costs
    # up to a unit in the last of bfloat16's 8 bits.
    assert_close(run(*args), expect(*args), relative=0.0 if dtype == torch.float32 else 2**-7)


@runs_here
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    "sequences, channel, state, reverse, z, initial",
    [
        (ONE_ROW, 1, 1, [False], False, False),
        (ONE_ROW, 5, 3, [False, True], True, True),
        (AT_A_TILE, 5, 3, [True], True, False),
        (PADDED, 19, 16, [False, True], True, True),
        (PADDED, 7, 1, [True, False], False, True),
        (GAPS, 9, 16, [False], False, True),
        (GAPS, 3, 70, [True], True, True),
        (NOTHING, 4, 2, [False, True], True, True),
    ],
)
def test_equals_reference(monkeypatch, wide, sequences, channel, state, reverse, z, initial):
    monkeypatch.setattr(triton, "ENOUGH_PROGRAMS", 0 if wide else 10**9)
    check(sequences, channel, state, reverse, z, initial)


@runs_here
def test_step_size_without_softplus():
    directions, z = make_inputs([12], 12, 6, 4, [False], z=True, initial=False)
    d = directions[0]
    directions = [d._replace(delta=d.delta.abs(), delta_bias=d.delta_bias.abs())]
    args = (directions, z, [0], [12], False, torch.ones(12, 6), [None])
    assert_close(run(*args), expect(*args))


@runs_here
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_input(dtype):
    check(PADDED, 10, 16, [False, True], True, False, dtype=dtype)


@runs_here
def test_extreme_step_sizes():
    """Softplus and exp stay finite and right far from zero."""
    delta = torch.tensor([-200.0, -90.0, -20.0, -5.0, 0.0, 20.0, 90.0, 200.0])[:, None]
    one, rows = torch.ones(8, 1), Rows(torch.tensor([0]), torch.tensor([8]))
    direction = Direction(one, delta, -one[:1], one, one, 0 * one[0], 0 * one[0])
    exact = map_tensors(Tensor.double, direction).map_frames(lambda x: x[None])
    rows, direction = Rows(*to(DEVICE, *rows)), map_tensors(lambda x: x.to(DEVICE), direction)
    out, _, starts = triton.scan_forward([direction], None, rows, True, keep=False)
    assert starts.numel() == 0
    expected, _ = reference.selective_scan(exact, None, True, None)
    torch.testing.assert_close(out.cpu().double(), expected[0], rtol=1e-5, atol=1e-37)


@runs_here
def test_same_bits_in_every_run():
    directions, z = make_inputs([9], 9, 20, 8, [False, True], z=True, initial=False)
    args = (directions, z, [0], [9], True, torch.ones(9, 20), [None, None])
    first, second = run(*args), run(*args)
    assert torch.equal(first[0], second[0]) and torch.equal(first[3], second[3])
    for one, other in zip(first[2], second[2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:-1], other[:-1], strict=True))


@runs_here
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    "sequences, channel, kernel, left",
    [(ONE_ROW, 1, 1, 0), (AT_A_TILE, 19, 4, 3), (PADDED, 5, 4, 0), (GAPS, 130, 31, 15)],
)
def test_convolution_equals_reference(sequences, channel, kernel, left, silu):
    firsts, lengths, rows = sequences
    generator = torch.Generator().manual_seed(0)
    x, grad_out = torch.randn(2, rows, channel + 2, generator=generator)[:, :, 2:]
    weight = torch.randn(channel, kernel, generator=generator)
    bias = torch.randn(channel, generator=generator)
    valid = torch.zeros(rows, dtype=torch.bool)
    for first, length in zip(firsts, lengths, strict=True):
        valid[first : first + length] = True
    x[~valid] = grad_out[~valid] = float("nan")
    leaves = [v.double().requires_grad_() for v in (x, weight, bias)]
    expected = torch.zeros(rows, channel, dtype=torch.float64)
    for first, length in zip(firsts, lengths, strict=True):
        if length:
            piece = leaves[0][None, first : first + length]
            y = reference.depthwise_conv(piece, *leaves[1:], left, silu, None)
            expected = expected.index_add(0, torch.arange(first, first + length), y[0])
    expected.backward(grad_out.double().nan_to_num())
    where = Rows(*to(DEVICE, torch.tensor(firsts), torch.tensor(lengths)))
    x, weight, bias, grad_out = to(DEVICE, x, weight, bias, grad_out)
    out = triton.conv_forward(x, weight, bias, where, left, silu)
    grads = triton.conv_backward(x, weight, bias, where, grad_out, left, silu)
    assert_close(out.cpu(), expected.detach())
    for grad, leaf in zip(to("cpu", *grads), leaves, strict=True):
        assert_close(grad, leaf.grad)


def run_apart(arguments, **environment):
    result = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


@without_gpu
@pytest.mark.slow
def test_in_the_interpreter():
    pytest_here = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).resolve())]
    assert "passed" in run_apart(pytest_here, TRITON_INTERPRET="1")


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction
from espnet_mlma.scan import triton as scan
from espnet_mlma.scan.rows import Direction, Rows

class Driver:  # of an absent GPU
    def get_current_target(self): return GPUTarget("cuda", 80, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

launch, compiled = JITFunction.run, []
def compile_only(self, *args, warmup, **options):
    compiled.append(launch(self, *args, warmup=True, **options).asm["cubin"])
triton.runtime.driver.set_active(Driver())
JITFunction.run = compile_only
x, weight = torch.zeros(8, 64, dtype=torch.bfloat16), torch.zeros(64)
maps = torch.zeros(8, 40, dtype=torch.bfloat16)
fields = x, x, torch.zeros(64, 16), maps[:, 8:24], maps[:, 24:], weight, weight
directions = [Direction(*fields), Direction(*fields, reverse=True)]
rows = Rows(torch.tensor([0]), torch.tensor([8]))
inputs = (directions, x, rows, True)
out, _, starts = scan.scan_forward(*inputs, keep=True)
scan.scan_backward(*inputs, starts, out, None)
scan.conv_backward(x, torch.zeros(64, 4), weight, rows, out, 3, True)
scan.conv_forward(x, torch.zeros(64, 31), weight, rows, 15, False)
print(len(compiled))
"""


@without_gpu
@pytest.mark.slow
def test_compiles_for_a_gpu(tmp_path):
    assert run_apart(["-c", COMPILE], TRITON_CACHE_DIR=str(tmp_path)).split() == ["8"]
