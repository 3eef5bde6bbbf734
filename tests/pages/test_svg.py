import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from espnet_mlma.pages import svg
from espnet_mlma.pages.svg import Axis, ticks


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
def test_ticks_include_0_and_span_all_values(values, expected):
    assert np.allclose(ticks(values), expected)


def test_an_axis_is_linear_between_its_ends():
    axis = Axis([-1, 0, 3], 100, 20)
    assert [axis(value) for value in (-1, 0, 3)] == [100, 80, 20]
    assert Axis([7, 7], 5, 9)(7) == 5


def points(chart: ElementTree.Element, part: str) -> list[tuple[float, float]]:
    (line,) = chart.findall(f"polyline[@class='{part}']")
    return [tuple(map(float, place.split(","))) for place in line.get("points").split()]


def test_a_line_chart_has_epochs_to_scale_and_labels_apart():
    lines = {"train": [(1, 9.0), (2, 3.0), (4, 1.0)], "valid": [(4, 1.1)]}
    chart = ElementTree.fromstring(svg.line_chart("Loss", lines))
    xs, ys = zip(*points(chart, "train"), strict=True)
    assert ys[0] < ys[1] < ys[2]
    assert xs[2] - xs[1] == pytest.approx(2 * (xs[1] - xs[0]), abs=0.2)
    labels = {text.text: float(text.get("y")) for text in chart.findall("text[@class]")}
    assert abs(labels["train"] - labels["valid"]) >= 14


def test_a_single_epoch_and_zeros_are_drawn():
    chart = ElementTree.fromstring(svg.line_chart("Loss", {"train": [(1, 0.0)]}))
    assert len(points(chart, "train")) == 1


def test_texts_are_escaped():
    rows = [("<i>", [svg.Dot(50.0, 1.0, "<b>&"), svg.Dot(0.0, 0.5, "s")])]
    chart = ElementTree.fromstring(svg.weighted_dots(rows, "a<b"))
    assert [dot.find("title").text for dot in chart.findall("circle")] == ["<b>&", "s"]
    assert {"<i>", "a<b"} <= {text.text for text in chart.findall("text")}
