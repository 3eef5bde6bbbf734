import pytest
import torch

from espnet_mlma.encoder.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1001, 333), (7, 50_003)])
def test_rate_mean_and_gradient(rate, shape):
    torch.manual_seed(0)
    x = torch.ones(shape, requires_grad=True)
    y = Dropout(rate)(x)
    zeros = (y == 0).float().mean().item()
    # Five standard deviations of a share of so many draws.
    assert abs(zeros - rate) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5
    kept = y.detach()[y.detach() != 0]
    assert kept.min() == kept.max()
    assert kept.max().item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


def test_draws_follow_the_seed_and_are_independent():
    x, dropout = torch.ones(400, 256), Dropout(0.5)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first)
    kept = torch.stack([first, second]).bool().double()
    # Between draws, neighbours and the four lanes of a number.
    for a, b in (
        (kept[0], kept[1]),
        *((kept[0].flatten()[:-shift], kept[0].flatten()[shift:]) for shift in (1, 2, 3, 4)),
    ):
        correlation = ((a - 0.5) * (b - 0.5)).mean().item() / 0.25
        assert abs(correlation) < 5 / a.numel() ** 0.5


def test_nothing_in_evaluation_or_at_rate_zero_and_all_at_one():
    x = torch.randn(5, 7)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


def test_keeps_the_type():
    assert Dropout(0.1)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16
