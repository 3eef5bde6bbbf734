"""Plots as SVG, coloured by the style sheet of the page.

matplotlib's SVG has fixed colours, which cannot follow light and dark, and a path for each letter.
Systems differ in shape and colour, those decoded here are filled and published ones hollow, and
kinds of error differ in hatching.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS = 7  # --c0 to --c6 of the style sheet
SHAPES = (
    "M-5,0A5,5 0 1,0 5,0A5,5 0 1,0 -5,0Z",  # circle
    "M-4.5,-4.5H4.5V4.5H-4.5Z",  # square
    "M0,-5.5L5.5,4.5H-5.5Z",  # triangle
    "M0,-6L6,0L0,6L-6,0Z",  # diamond
    "M0,5.5L5.5,-4.5H-5.5Z",  # triangle, tip down
    "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",  # cross
)
KINDS = {"sub": "substitutions", "del": "deletions", "ins": "insertions"}
_HATCHINGS = ("", "M0,6L6,0", "M0,3H6")
_WIDTH, _RIGHT, _TOP, _BOTTOM = 620, 30, 8, 40
_LETTER = 7  # approximate width of a letter
_LANE, _LEAST_LANES = 13, 2  # height of a mark, and lanes of a row with few
_CHART_WIDTH, _CHART_HEIGHT, _CHART_MARGIN = 420, 230, 52
_LARGEST_DOT = 8.0
_LABEL_GAP = 14


@dataclass(frozen=True)
class Axis:
    """Map values to coordinates.

    Attributes:
        ticks: labelled values, ascending; the first and the last are the ends.
        start, end: coordinates of the ends.
    """

    ticks: Sequence[float]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        share = (value - low) / (high - low or 1)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Point:
    """A value in a row of `dots`, with the number of the system's mark."""

    mark: int
    is_filled: bool
    value: float
    title: str


@dataclass(frozen=True)
class Dot:
    """A value in a row of `weighted_dots`; `share` of the largest area."""

    value: float
    share: float
    title: str


@dataclass(frozen=True)
class Interval:
    """A row of `intervals`: a value and its confidence interval."""

    label: str
    low: float
    value: float
    high: float


def ticks(values: Sequence[float], steps: int = 5) -> list[float]:
    """Return evenly spaced round numbers that include 0 and span all values.

    Args:
        values: at least one.
        steps: maximum number, or one more on either side of 0.
    """
    low, high = min(0.0, *values), max(0.0, *values)
    high = high if high > low else 1.0
    rough = (high - low) / steps
    power = 10 ** math.floor(math.log10(rough))
    # Tolerance for rounding: 0.1 * 3 is more than 0.3.
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def element(name: str, *children: str, **attributes: object) -> Markup:
    """Make an element; all texts are escaped.

    Args:
        name: of the element.
        children: elements and texts.
        attributes: `class_` is class, other underscores are hyphens; floats get one decimal.
    """
    texts = {
        key.rstrip("_").replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else value
        for key, value in attributes.items()
    }
    inside = Markup("").join(Markup(' {}="{}"').format(*item) for item in texts.items())
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), inside, Markup("").join(children))


def mark(number: int, is_filled: bool, x: float = 0, y: float = 0, title: str = "") -> Markup:
    """Draw the mark of a system, one of 42 combinations of shape and colour.

    Args:
        number: of the system on the page.
        is_filled: decoded here.
        x, y: position.
        title: tooltip.
    """
    return element(
        "path",
        *([element("title", title)] if title else []),
        class_="filled" if is_filled else "hollow",
        style=f"--c:var(--c{number % COLOURS})",
        transform=f"translate({x:.1f},{y:.1f})",
        d=SHAPES[number % len(SHAPES)],
    )


def mark_key(number: int, is_filled: bool) -> Markup:
    """Draw a mark for use beside a name."""
    return element(
        "svg", mark(number, is_filled), class_="key", viewBox="-8 -8 16 16", aria_hidden="true"
    )


def bar_key(kind: str) -> Markup:
    """Draw a piece of a bar for use beside the name of its kind."""
    bar = element("rect", class_=f"bar {kind}", x=1, y=2, width=14, height=12)
    return element("svg", bar, class_="key", viewBox="0 0 16 16", aria_hidden="true")


def hatchings() -> Markup:
    """Define the patterns of `bars`; a page with bars needs them once."""
    patterns = [
        element(
            "pattern",
            element("rect", width=6, height=6, style=f"fill:var(--{kind})"),
            element("path", class_="hatch", d=line),
            **{"id": f"hatch-{kind}", "width": 6, "height": 6, "patternUnits": "userSpaceOnUse"},
        )
        for kind, line in zip(KINDS, _HATCHINGS, strict=True)
    ]
    return element("svg", element("defs", *patterns), width=0, height=0, aria_hidden="true")


def dots(rows: Sequence[tuple[str, Sequence[Point]]], unit: str) -> Markup:
    """Plot a row of marks for each label.

    Args:
        rows: labels and points.
        unit: text below the axis.
    """
    across = _axis(
        [label for label, _ in rows], [point.value for _, points in rows for point in points]
    )
    bands, parts, y = [], [], float(_TOP)
    for number, (label, points) in enumerate(rows):
        placed = _in_lanes([(across(point.value), point) for point in points])
        lanes = max((lane + 1 for lane, _, _ in placed), default=0)
        height = _LANE * (1 + max(lanes, _LEAST_LANES))
        bands += _band(across, label, y, height, number)
        parts += [
            mark(point.mark, point.is_filled, x, y + _LANE * (lane + 1), point.title)
            for lane, x, point in placed
        ]
        y += height
    return _plot(bands, parts, across, y, unit)


def _in_lanes(points: Iterable[tuple[float, Point]]) -> list[tuple[int, float, Point]]:
    """Place each point in the uppermost lane where it covers no other."""
    last: list[float] = []
    placed = []
    for x, point in sorted(points, key=lambda found: found[0]):
        lane = next((n for n, before in enumerate(last) if x - before >= _LANE), len(last))
        last[lane : lane + 1] = [x]
        placed.append((lane, x, point))
    return placed


def weighted_dots(rows: Sequence[tuple[str, Sequence[Dot]]], unit: str) -> Markup:
    """Plot a row of dots for each label, with areas by `share`.

    Args:
        rows: labels and dots, at least one dot.
        unit: text below the axis.
    """
    values = [dot.value for _, of in rows for dot in of]
    across = _axis([label for label, _ in rows], values if any(values) else [100.0], 350)
    height = 34
    bands, parts = [], []
    for number, (label, of) in enumerate(rows):
        y = float(_TOP + height * number)
        bands += _band(across, label, y, height, number)
        parts += [
            element(
                "circle",
                element("title", dot.title),
                class_="dot",
                cx=across(dot.value),
                cy=y + height / 2,
                r=max(2.5, _LARGEST_DOT * math.sqrt(dot.share)),
            )
            for dot in of
        ]
    return _plot(bands, parts, across, _TOP + height * len(rows), unit, "chart")


def intervals(rows: Sequence[Interval], unit: str) -> Markup:
    """Plot a line for each interval; the point is filled if 0 is outside.

    Args:
        rows: from top to bottom.
        unit: text below the axis.
    """
    across = _axis(
        [row.label for row in rows], [value for row in rows for value in (row.low, row.high)]
    )
    height = 20
    bottom = _TOP + height * len(rows)
    bands, parts = [], [_line("zero", across(0), _TOP, across(0), bottom)]
    for number, row in enumerate(rows):
        y = _TOP + height * (number + 0.5)
        bands += _band(across, row.label, y - height / 2, height, number)
        parts.append(_line("interval", across(row.low), y, across(row.high), y))
        title = f"{row.label}: {row.value:+.2f}, {row.low:+.2f} to {row.high:+.2f}"
        parts.append(mark(0, row.low > 0 or row.high < 0, across(row.value), y, title))
    return _plot(bands, parts, across, bottom, unit)


def bars(rows: Sequence[tuple[str, Mapping[str, float]]], unit: str) -> Markup:
    """Plot stacked bars, each kind of error with the hatching of `hatchings`.

    Args:
        rows: labels and values by kind.
        unit: text below the axis.
    """
    across = _axis([label for label, _ in rows], [sum(values.values()) for _, values in rows])
    height, bands, parts = 34, [], []
    for number, (label, values) in enumerate(rows):
        y = float(_TOP + height * number)
        bands += _band(across, label, y, height, number)
        start = 0.0
        for kind, value in values.items():
            left, right = across(start), across(start + value)
            title = element("title", f"{label}: {KINDS[kind]} {value:.1f}")
            place = {"x": left, "width": right - left, "y": y + 7, "height": 20}
            parts.append(element("rect", title, class_=f"bar {kind}", **place))
            start += value
    return _plot(bands, parts, across, _TOP + height * len(rows), unit)


def line_chart(name: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> Markup:
    """Plot values over epochs.

    Args:
        name: of the values.
        lines: by class, `train` or `valid`: epochs and values that are not negative.
    """
    points = [point for line in lines.values() for point in line]
    epochs = sorted({epoch for epoch, _ in points})
    bottom, right = _CHART_HEIGHT - 38, _CHART_WIDTH - 48
    x = Axis([epochs[0], epochs[-1]], _CHART_MARGIN + 8, right)
    y = Axis(ticks([value for _, value in points]), bottom, 18)
    parts = []
    for tick in y.ticks:
        parts.append(_line("grid", _CHART_MARGIN, y(tick), right, y(tick)))
        parts.append(_text(_CHART_MARGIN - 8, y(tick) + 4, f"{tick:.3g}", "end"))
    whole = range(epochs[0], epochs[-1] + 1, math.ceil(len(epochs) / 12))
    parts += [_text(x(epoch), bottom + 16, str(epoch)) for epoch in whole]
    parts.append(_text((_CHART_MARGIN + _CHART_WIDTH) / 2, _CHART_HEIGHT - 6, "epoch"))
    labels = _without_overlap({part: y(line[-1][1]) for part, line in lines.items()})
    for part, line in lines.items():
        places = [(x(epoch), y(value)) for epoch, value in line]
        text = " ".join(f"{a},{b}" for a, b in places)
        parts.append(element("polyline", class_=part, points=text))
        parts += [_chart_point(part, *place) for place in places]
        parts.append(element("text", part, class_=part, x=places[-1][0] + 8, y=labels[part] + 4))
    label = f"{name} over {len(epochs)} epochs; values are in the table below"
    return _svg(parts, _CHART_WIDTH, _CHART_HEIGHT, label, "chart")


def _chart_point(part: str, x: float, y: float) -> Markup:
    if part == "valid":
        return element("rect", class_=part, x=x - 3.5, y=y - 3.5, width=7, height=7)
    return element("circle", class_=part, cx=x, cy=y, r=3.5)


def _without_overlap(places: dict[str, float]) -> dict[str, float]:
    """Move labels up until none covers another."""
    moved: dict[str, float] = {}
    for name, place in sorted(places.items(), key=lambda item: -item[1]):
        moved[name] = min([place, *(below - _LABEL_GAP for below in moved.values())])
    return moved


def _axis(labels: Iterable[str], values: Sequence[float], width: int = _WIDTH) -> Axis:
    """Make a horizontal axis to the right of the labels."""
    left = 16 + _LETTER * max(map(len, labels))
    return Axis(ticks(values, 6), left, left + width)


def _band(across: Axis, label: str, y: float, height: float, number: int) -> list[Markup]:
    """Draw the label of a row and, in every other row, a band."""
    size = {"x": across.start, "width": across.end - across.start, "y": y, "height": height}
    text = _text(across.start - 8, y + height / 2 + 4, label, "end")
    return [element("rect", class_="band", **size), text] if number % 2 == 0 else [text]


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("line", class_=kind, x1=x1, y1=y1, x2=x2, y2=y2)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor)


def _plot(
    bands: Sequence[Markup],
    parts: Sequence[Markup],
    across: Axis,
    bottom: float,
    unit: str,
    kind: str = "plot",
) -> Markup:
    """Put bands, grid, parts and axis on top of each other, in this order."""
    grid = []
    for tick in across.ticks:
        grid.append(_line("grid", across(tick), _TOP, across(tick), bottom))
        grid.append(_text(across(tick), bottom + 15, f"{tick:g}"))
    name = _text((across.start + across.end) / 2, bottom + 33, unit)
    size = across.end + _RIGHT, bottom + _BOTTOM
    return _svg([*bands, *grid, *parts, name], *size, unit, kind)


def _svg(parts: Iterable[Markup], width: float, height: float, label: str, kind: str) -> Markup:
    size = {"width": width, "viewBox": f"0 0 {width:g} {height:g}"}
    return element("svg", *parts, class_=kind, **size, role="img", aria_label=label)
