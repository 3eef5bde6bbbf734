import pytest
import torch

from espnet_mlma.scan import Rows, available_backends, depthwise_conv

ON_CPU = [name for name in available_backends() if name in ("cpu", "reference")]
needs_c = pytest.mark.skipif("cpu" not in available_backends(), reason="C extension not built")


@needs_c
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("batch", "time", "channel", "kernel", "left"),
    [
        (1, 1, 1, 1, 0),
        (3, 5, 5, 31, 15),
        (2, 37, 20, 4, 3),
        (4, 150, 33, 31, 15),
        (2, 70, 16, 9, 0),
    ],
)
def test_c_equals_reference(batch, time, channel, kernel, left, threads, silu):
    torch.manual_seed(0)
    lengths = torch.randint(0, time + 1, (batch,))
    lengths[-1] = time
    x = torch.randn(batch, time, channel).double()
    weight, bias = torch.randn(channel, kernel).double(), torch.randn(channel).double()
    grad = torch.randn(batch, time, channel).double()
    results = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for backend, dtype in (("reference", torch.float64), ("cpu", torch.float32)):
            leaves = [v.clone().to(dtype).requires_grad_() for v in (x, weight, bias)]
            out = depthwise_conv(*leaves, left=left, silu=silu, lengths=lengths, backend=backend)
            out.backward(grad.to(dtype))
            results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    finally:
        torch.set_num_threads(before)
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("backend", ON_CPU)
def test_padding_is_never_read(backend):
    x = torch.randn(2, 20, 8)
    x[1, 11:] = float("nan")
    out = depthwise_conv(
        x, torch.randn(8, 5), left=2, lengths=torch.tensor([20, 11]), backend=backend
    )
    assert out.isfinite().all() and not out[1, 11:].any()


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize(("kernel", "left"), [(4, 3), (4, 0), (31, 15)])
def test_packed_equals_one_by_one(backend, kernel, left):
    lengths = [33, 0, 1, 90, 15]
    x = torch.randn(1, sum(lengths), 20, requires_grad=True)
    weight = torch.randn(20, kernel, requires_grad=True)
    pieces = [piece for piece in x.split(lengths, dim=1) if piece.size(1)]
    expected = torch.cat(
        [depthwise_conv(piece, weight, None, left, backend="reference") for piece in pieces], 1
    )
    rows = Rows.packed(torch.tensor(lengths))
    out = depthwise_conv(x, weight, None, left, rows=rows, backend=backend)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(out.shape)
    for got, want in zip(
        torch.autograd.grad(out, (x, weight), weights),
        torch.autograd.grad(expected, (x, weight), weights),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


@needs_c
def test_operator_is_whole():
    x, weight = torch.randn(40, 20, requires_grad=True), torch.randn(20, 5, requires_grad=True)
    rows = torch.tensor([0, 20]), torch.tensor([20, 13])
    torch.library.opcheck(
        torch.ops.espnet_mlma.conv.default,
        (x, weight, torch.randn(20, requires_grad=True), *rows, 2, True, "cpu"),
    )


def test_equals_torch():
    x, weight, bias = torch.randn(2, 30, 6), torch.randn(6, 5), torch.randn(6)
    expected = torch.nn.functional.conv1d(
        x.transpose(1, 2), weight[:, None], bias, padding=2, groups=6
    ).transpose(1, 2)
    torch.testing.assert_close(depthwise_conv(x, weight, bias, left=2), expected)


def test_left_outside_the_kernel():
    with pytest.raises(ValueError, match="left is 5"):
        depthwise_conv(torch.zeros(1, 3, 2), torch.zeros(2, 4), left=5)
