"""Every backend gives the numbers of the reference in fp64, forward and backward."""

import pytest
import torch

from espnet_mlma.scan import Direction, Rows, available_backends, depthwise_conv, selective_scan

ON_CPU = [name for name in available_backends() if name in ("cpu", "reference")]
BACKENDS = [name for name in ON_CPU if name != "reference"]

# time 1; time below, at and above the tile of 32; channels off 16; every d_state a kernel meets.
SHAPES = [
    (1, 1, 1, 1),
    (2, 5, 16, 2),
    (3, 32, 20, 16),
    (2, 33, 33, 3),
    (4, 70, 64, 8),
    (1, 100, 48, 64),
]


def make_inputs(batch, time, channel, state, with_options=True, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "u": normal(batch, time, channel),
        "delta": normal(batch, time, channel),
        "A": -0.1 - 4 * torch.rand(channel, state, generator=generator, dtype=torch.float64),
        "B": normal(batch, time, state),
        "C": normal(batch, time, state),
    }
    if with_options:
        inputs |= {
            "D": normal(channel),
            "z": normal(batch, time, channel),
            "delta_bias": 0.1 * normal(channel),
            "initial_state": normal(batch, channel, state),
        }
    return inputs


def scan(inputs, reverse=False, **options):
    """Scan one direction, of these fields and gate; return its output and final state."""
    fields = {name: x for name, x in inputs.items() if name != "z"}
    out, states = selective_scan([Direction(**fields, reverse=reverse)], inputs.get("z"), **options)
    return out, states[0]


def make_lengths(batch, time, kind):
    if kind is None:
        return None
    if kind == "full":
        return torch.full((batch,), time)
    return torch.tensor([(i * 7919 + 3) % (time + 1) for i in range(batch)]) * torch.tensor(
        [0] + [1] * (batch - 1)  # the first sequence is empty
    )


def run_with_gradients(inputs, dtype, backend, **options):
    leaves = {name: x.clone().to(dtype).requires_grad_() for name, x in inputs.items()}
    out, final = scan(leaves, backend=backend, **options)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (out, final)]
    torch.autograd.backward(
        (out, final), [w.to(x.dtype) for w, x in zip(weights, (out, final), strict=True)]
    )
    return {"out": out.detach(), "final": final.detach()} | {
        # None: the result does not depend on it, as C on the first frame of an empty sequence.
        f"grad {name}": torch.zeros_like(x) if x.grad is None else x.grad
        for name, x in leaves.items()
    }


def assert_close(actual, expected):
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
        difference = (actual[name].double() - value).abs().max().item() if value.numel() else 0.0
        assert difference <= 5e-6 * scale, f"{name}: {difference} at scale {scale}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", [None, "full", "mixed"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_backend_equals_reference(backend, threads, lengths, reverse, shape):
    options = {
        "delta_softplus": True,
        "reverse": reverse,
        "lengths": make_lengths(*shape[:2], lengths),
    }
    inputs = make_inputs(*shape)
    expected = run_with_gradients(inputs, torch.float64, "reference", **options)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_close(run_with_gradients(inputs, torch.float32, backend, **options), expected)
    finally:
        torch.set_num_threads(before)


def make_packed(lengths, channel, state):
    """Make the fields of two directions for packed sequences, and a gate; fp64."""
    inputs = [make_inputs(1, sum(lengths), channel, state, seed=seed) for seed in (0, 1)]
    z = inputs[0].pop("z")
    generator = torch.Generator().manual_seed(2)
    for fields in inputs:
        del fields["initial_state"]
        fields["initial_state"] = torch.randn(
            len(lengths), channel, state, generator=generator, dtype=torch.float64
        )
    del inputs[1]["z"]
    return inputs, z


def one_by_one(inputs, z, lengths):
    """Scan each sequence alone by the reference, forward and in reverse; add and gate."""
    outs, start = [], 0
    for i, length in enumerate(lengths):
        frames, total = slice(start, start + length), 0
        for fields, reverse in zip(inputs, (False, True), strict=True):
            own = {
                k: x[:, frames] if k in ("u", "delta", "B", "C") else x for k, x in fields.items()
            } | {"initial_state": fields["initial_state"][i : i + 1]}
            y, _ = scan(own, reverse, delta_softplus=True, backend="reference")
            total = total + y
        outs.append(total * torch.nn.functional.silu(z[:, frames]))
        start += length
    return torch.cat(outs, 1)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lengths", [[1], [40], [33, 0, 1, 64, 5], [31, 32, 33], [0, 7]])
def test_both_directions_of_packed_sequences(backend, threads, lengths):
    inputs, z = make_packed(lengths, 36, 5)
    leaves = [{k: x.clone().requires_grad_() for k, x in fields.items()} for fields in inputs]
    gate = z.clone().requires_grad_()
    expected = one_by_one(leaves, gate, lengths)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    expected.backward(weights)
    wanted = {"out": expected.detach(), "z": gate.grad}
    wanted |= {f"{i}{k}": x.grad for i, fields in enumerate(leaves) for k, x in fields.items()}

    dtype = torch.float64 if backend == "reference" else torch.float32
    leaves = [
        {k: x.clone().to(dtype).requires_grad_() for k, x in fields.items()} for fields in inputs
    ]
    gate = z.clone().to(dtype).requires_grad_()
    rows = Rows.packed(torch.tensor(lengths))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        forward, reverse = leaves
        directions = [Direction(**forward), Direction(**reverse, reverse=True)]
        out, _ = selective_scan(directions, gate, delta_softplus=True, rows=rows, backend=backend)
        out.backward(weights.to(dtype))
    finally:
        torch.set_num_threads(before)
    actual = {"out": out.detach(), "z": gate.grad}
    actual |= {f"{i}{k}": x.grad for i, fields in enumerate(leaves) for k, x in fields.items()}
    assert_close(actual, wanted)


@pytest.mark.parametrize("backend", ON_CPU)
def test_both_directions_of_a_padded_batch(backend):
    lengths = torch.tensor([40, 0, 17])
    directions = []
    for seed, reverse in ((0, False), (1, True)):
        fields = {k: x.float() for k, x in make_inputs(3, 40, 20, 4, seed=seed).items()}
        z = fields.pop("z")
        del fields["initial_state"]
        directions.append(Direction(**fields, reverse=reverse))
    expected = sum(
        selective_scan([direction], z, delta_softplus=True, lengths=lengths)[0]
        for direction in directions
    )
    z[2, 17:] = float("nan")
    out, _ = selective_scan(directions, z, True, lengths=lengths, backend=backend)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_operator_is_whole(backend):
    """Schema, shapes without data, and gradients under torch.compile, by PyTorch's own checks."""
    lengths = [63]  # of two tiles no row is left unwritten, so that results can be compared whole
    inputs, z = make_packed(lengths, 20, 3)
    leaves = [[x.float().requires_grad_() for x in fields.values()] for fields in inputs]
    fields = dict(zip(inputs[0], zip(*leaves, strict=True), strict=True))
    rows = {"u", "delta", "B", "C"}
    args = [
        [x.flatten(0, 1).detach().requires_grad_() if name in rows else x for x in fields[name]]
        for name in ("u", "delta", "A", "B", "C", "D", "delta_bias", "initial_state")
    ]
    first = torch.tensor([0])
    for gate in (z[0].float().requires_grad_(), None):
        torch.library.opcheck(
            torch.ops.espnet_mlma.scan.default,
            (*args, [False, True], gate, first, torch.tensor(lengths), True, backend, True),
        )


def test_compiles_without_a_break():
    def run(u, delta, A, B, C, z, rows):
        direction = Direction(u, delta, A, B, C)
        return selective_scan([direction], z, delta_softplus=True, rows=rows)[0].sum()

    x = {k: v.float() for k, v in make_inputs(1, 40, 16, 4).items()}
    args = [x[k].requires_grad_() for k in ("u", "delta", "A", "B", "C", "z")]
    rows = Rows.packed(torch.tensor([13, 27]))
    expected = torch.autograd.grad(run(*args, rows), args)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(torch.autograd.grad(compiled(*args, rows), args), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_options(backend):
    inputs = make_inputs(2, 40, 24, 4, with_options=False)
    inputs["delta"] = inputs["delta"].abs()
    expected = run_with_gradients(inputs, torch.float64, "reference")
    assert_close(run_with_gradients(inputs, torch.float32, backend), expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_reference_gradients(reverse):
    inputs = {k: x.requires_grad_() for k, x in make_inputs(2, 4, 3, 2).items()}
    names = list(inputs)

    def run(*tensors):
        fields = dict(zip(names, tensors, strict=True))
        return scan(fields, reverse, delta_softplus=True, lengths=torch.tensor([4, 2]))

    assert torch.autograd.gradcheck(run, tuple(inputs.values()))


def test_reference_by_hand():
    """One channel, one state, two frames, written out."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    u, dt = torch.cat([2 * one, 3 * one], 1), torch.cat([one, 0.5 * one], 1)
    B, C = torch.cat([one, 4 * one], 1), torch.cat([5 * one, one], 1)
    A = -torch.ones(1, 1, dtype=torch.float64)
    out, _ = selective_scan([Direction(u, dt, A, B, C)])
    h1 = 1 * 2 * 1
    h2 = torch.exp(torch.tensor(-0.5, dtype=torch.float64)) * h1 + 0.5 * 3 * 4
    assert torch.allclose(out.flatten(), torch.stack([torch.tensor(5.0 * h1).double(), h2]))


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_is_never_read(backend, reverse):
    shape = (3, 50, 16, 4)
    lengths = torch.tensor([50, 17, 0])
    padding = torch.arange(50) >= lengths[:, None]
    outputs = []
    for garbage in (0.0, float("nan")):
        inputs = {k: x.float() for k, x in make_inputs(*shape).items()}
        for name in ("u", "delta", "B", "C", "z"):
            inputs[name][padding] = garbage
            inputs[name].requires_grad_()
        out, _ = scan(inputs, reverse, delta_softplus=True, lengths=lengths, backend=backend)
        out.sum().backward()
        assert out.isfinite().all() and not out[padding].any()
        grads = [inputs[name].grad for name in ("u", "delta", "B", "C", "z")]
        assert all(g.isfinite().all() and not g[padding].any() for g in grads)
        outputs.append([out.detach(), *grads])
    for clean, dirty in zip(*outputs, strict=True):
        assert torch.equal(clean, dirty)


@pytest.mark.parametrize("backend", ON_CPU)
def test_state_carries_over_a_cut(backend):
    inputs = {k: x.float() for k, x in make_inputs(2, 90, 20, 4).items()}
    state = inputs.pop("initial_state")
    fixed = {k: inputs.pop(k) for k in ("A", "D", "delta_bias")}
    whole, _ = scan(inputs | fixed | {"initial_state": state}, backend=backend)
    pieces = []
    for start, end in ((0, 1), (1, 40), (40, 90)):
        own = {k: x[:, start:end] for k, x in inputs.items()} | {"initial_state": state}
        piece, state = scan(own | fixed, backend=backend)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_input_and_bf16(backend):
    x = make_inputs(2, 37, 16, 4)
    packed = torch.cat([x["u"], x["z"]], -1).float()
    u, z = packed.chunk(2, -1)
    rest = {k: x[k].float() for k in ("delta", "A", "B", "C", "D")}
    rest["delta"] = rest["delta"].abs()
    dense = {"u": u.contiguous(), "z": z.contiguous()}
    expected, _ = scan(rest | dense, backend="reference")
    out, _ = scan(rest | {"u": u, "z": z}, backend=backend)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    low = {k: v.bfloat16() for k, v in (rest | {"u": u, "z": z}).items()}
    out, _ = scan(low, backend=backend)
    # fp32 state and sums: only the inputs and the result are rounded.
    exact, _ = scan({k: v.float() for k, v in low.items()}, backend="reference")
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, exact.bfloat16(), rtol=8e-3, atol=1e-4)


def test_extreme_step_sizes():
    """Softplus and exp stay finite and right far from zero."""
    delta = torch.tensor([-200.0, -90.0, -20.0, 0.0, 20.0, 90.0, 200.0])[None, :, None]
    ones = torch.ones(1, 7, 1)
    args = (ones, delta, -torch.ones(1, 1), ones, ones)
    exact = Direction(*(x.double() for x in args))
    expected, _ = selective_scan([exact], delta_softplus=True)
    for backend in BACKENDS:
        out, _ = selective_scan([Direction(*args)], delta_softplus=True, backend=backend)
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-37)


def test_errors_name_the_argument():
    inputs = make_inputs(2, 5, 4, 2)
    with pytest.raises(ValueError, match="B has shape"):
        scan(inputs | {"B": inputs["B"][:, :3]})
    with pytest.raises(ValueError, match="lengths must lie in 0 to 5"):
        scan(inputs, lengths=torch.tensor([6, 1]))
    with pytest.raises(ValueError, match="a batch of one, and no lengths"):
        scan(inputs, rows=Rows.packed(torch.tensor([5])))
    with pytest.raises(ValueError, match="'opencl' is not available"):
        scan(inputs, backend="opencl")
    with pytest.raises(ValueError, match="0 directions"):
        selective_scan([])


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_not_a_number_is_not_lost(backend, name):
    """Training stops on a NaN loss, so the scan must not turn NaN into a number."""
    inputs = {k: x.float() for k, x in make_inputs(1, 40, 20, 4).items()}
    inputs[name][..., -1] = float("nan")
    out, _ = scan(inputs, delta_softplus=True, backend=backend)
    assert out.isnan().any()


@pytest.mark.parametrize("backend", ON_CPU)
def test_infinite_step_sizes(backend):
    one = torch.ones(1, 2, 1)
    for delta in (float("-inf"), float("inf")):
        direction = Direction(one, one * delta, -torch.ones(1, 1), one, one)
        out, _ = selective_scan([direction], delta_softplus=True, backend=backend)
        # A step of size zero changes nothing; an infinite one has no finite result.
        assert out[0, 0] < 1e-37 if delta < 0 else not out[0, 0].isfinite()


def test_lengths_of_any_stride_and_type():
    inputs = {k: x.float() for k, x in make_inputs(3, 12, 8, 2).items()}
    expected, _ = scan(inputs, delta_softplus=True, lengths=torch.tensor([12, 5, 7]))
    strided = torch.tensor([[12, 0], [5, 99], [7, 3]], dtype=torch.int32)[:, 0]
    out, _ = scan(inputs, delta_softplus=True, lengths=strided)
    assert torch.equal(out, expected)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="C extension not built")
@pytest.mark.parametrize("lengths", [[6], [3, 3], [-1, 5]])
def test_rows_that_do_not_fit_are_refused(lengths):
    inputs = {k: x.float() for k, x in make_inputs(1, 5, 4, 2, with_options=False).items()}
    rows = Rows.packed(torch.tensor(lengths))
    with pytest.raises(ValueError, match="rows do not fit"):
        scan(inputs, rows=rows)
    with pytest.raises(ValueError, match="rows do not fit"):
        depthwise_conv(inputs["u"], torch.ones(4, 3), rows=rows)


def test_environment_names_the_backend(monkeypatch):
    monkeypatch.setenv("ESPNET_MLMA_SCAN", "opencl")
    with pytest.raises(ValueError, match="'opencl'"):
        scan(make_inputs(1, 2, 1, 1))
