import xml.etree.ElementTree as ElementTree

import pytest

from espnet_mlma.evaluation.report import charts, groups
from espnet_mlma.evaluation.report.training import Curve


def points(svg: ElementTree.Element, part: str) -> list[tuple[float, float]]:
    (line,) = svg.findall(f"polyline[@class='{part}']")
    return [tuple(map(float, place.split(","))) for place in line.get("points").split()]


def test_a_falling_curve_falls_on_the_chart():
    lines = {"train": [(1, 9.0), (2, 3.0), (4, 1.0)], "valid": [(4, 1.1)]}
    svg = ElementTree.fromstring(charts.curve(Curve("Loss", False, lines)))
    xs, ys = zip(*points(svg, "train"), strict=True)
    assert ys[0] < ys[1] < ys[2]
    assert xs[2] - xs[1] == pytest.approx(2 * (xs[1] - xs[0]), abs=0.2)
    labels = {text.text: float(text.get("y")) for text in svg.findall("text[@class]")}
    assert abs(labels["train"] - labels["valid"]) >= 14


def test_a_single_epoch_and_zeros_are_drawn():
    svg = ElementTree.fromstring(charts.curve(Curve("Loss", False, {"train": [(1, 0.0)]})))
    assert len(points(svg, "train")) == 1


def test_each_speaker_is_a_dot_that_is_escaped(spoken):
    heard = [spoken("a b", "a c", speaker="<b>&"), spoken("a", "a", lang="it"), spoken("", "x")]
    svg = ElementTree.fromstring(charts.speakers(groups.by_speaker(heard)))
    titles = [dot.find("title").text for dot in svg.findall("circle")]
    assert titles == ["<b>&: 50.0 % of 2 words", "s: 0.0 % of 1 words"]
