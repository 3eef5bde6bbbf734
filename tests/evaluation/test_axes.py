import numpy as np
import pytest

from espnet_mlma.evaluation.axes import Axis, ticks


@pytest.mark.parametrize("high", [1e-4, 0.052, 0.3, 1, 7, 97.375, 100, 119.7, 2e6])
def test_ticks_reach_the_highest_value_in_few_steps(high):
    marks = ticks([high / 2, high])
    assert marks[0] == 0 and 3 <= len(marks) <= 6
    assert high * (1 - 1e-6) <= marks[-1] < 2 * high


@pytest.mark.parametrize(
    "values, expected",
    [
        ([-2.9, 3.4], [-4, -2, 0, 2, 4]),
        ([-0.03, -0.01], [-0.03, -0.02, -0.01, 0]),
        ([0, 0], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_hold_0_and_all_values(values, expected):
    assert np.allclose(ticks(values), expected)


def test_an_axis_is_linear_between_its_ends():
    axis = Axis([-1, 0, 3], 100, 20)
    assert [axis(value) for value in (-1, 0, 3)] == [100, 80, 20]
    assert Axis([7, 7], 5, 9)(7) == 5
