"""Plots as SVG that a page's own style colours: no picture, no script, no font from elsewhere.

Systems differ by shape as well as by colour, systems measured here are filled and quoted ones
hollow, and kinds of error differ by hatching. The colours are Okabe and Ito's, which people with
the common kinds of colour-blindness tell apart; `--c0` to `--c6` are theirs, on white some darker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from espnet_mlma.evaluation.axes import Axis, ticks

COLOURS = 7
SHAPES = (
    "M-5,0A5,5 0 1,0 5,0A5,5 0 1,0 -5,0Z",  # circle
    "M-4.5,-4.5H4.5V4.5H-4.5Z",  # square
    "M0,-5.5L5.5,4.5H-5.5Z",  # triangle
    "M0,-6L6,0L0,6L-6,0Z",  # diamond
    "M0,5.5L5.5,-4.5H-5.5Z",  # triangle on its tip
    "M-2,-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",  # cross
)
_WIDTH, _RIGHT = 620, 30
_LETTER = 7  # pixels of a letter of the labels, more or less
_TOP, _BOTTOM = 8, 40
_LANE, _LEAST_LANES = 13, 2  # pixels that a mark takes, and lanes of a row that has few
# What a page needs once, before plots of `bars`: the patterns that `k0` to `k2` fill with.
HATCHINGS = (
    '<svg width="0" height="0" aria-hidden="true"><defs>'
    + "".join(
        f'<pattern id="hatch{kind}" width="6" height="6" patternUnits="userSpaceOnUse">'
        f'<rect width="6" height="6" style="fill:var(--k{kind})"/>'
        f'<path class="hatch" d="{line}"/></pattern>'
        for kind, line in enumerate(("", "M0,6L6,0", "M0,3H6"))
    )
    + "</defs></svg>"
)


@dataclass(frozen=True)
class Point:
    """A value of a system in a row of a plot."""

    mark: int
    is_filled: bool
    value: float
    title: str


@dataclass(frozen=True)
class Interval:
    """A difference and where it may lie, in a row of a plot."""

    label: str
    low: float
    value: float
    high: float


def _axis(labels: Iterable[str], values: Sequence[float]) -> Axis:
    """Along the width of a plot, right of the labels."""
    left = 16 + _LETTER * max(map(len, labels))
    return Axis(ticks(values, 6), left, left + _WIDTH)


def mark(number: int, is_filled: bool, x: float = 0, y: float = 0, title: str = "") -> str:
    """The mark of a system: 42 combinations of shape and colour.

    Args:
        number: of the system on the page.
        is_filled: measured here.
        x, y: where.
        title: shown where a mouse rests on it.
    """
    kind = "filled" if is_filled else "hollow"
    about = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<path class="{kind}" style="--c:var(--c{number % COLOURS})" '
        f'transform="translate({x:.1f},{y:.1f})" d="{SHAPES[number % len(SHAPES)]}">{about}</path>'
    )


def key(number: int, is_filled: bool) -> str:
    """A mark by itself, to stand before a name."""
    return (
        f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">{mark(number, is_filled)}</svg>'
    )


def dots(rows: Sequence[tuple[str, Sequence[Point]]], unit: str) -> str:
    """A row of points for each label.

    Args:
        rows: labels and points.
        unit: what stands under the axis.
    """
    across = _axis(
        [label for label, _ in rows], [point.value for _, points in rows for point in points]
    )
    parts, above = [], 0
    for number, (label, points) in enumerate(rows):
        placed = _in_lanes([(across(point.value), point) for point in points])
        lanes = max((lane + 1 for lane, _, _ in placed), default=0)
        height = _LANE * (1 + max(lanes, _LEAST_LANES))
        parts.append(_row(across, label, _TOP + above, height, number))
        for lane, x, point in placed:
            y = _TOP + above + _LANE * (lane + 1)
            parts.append(mark(point.mark, point.is_filled, x, y, point.title))
        above += height
    return _svg(parts, across, above, unit)


def _in_lanes(points: Iterable[tuple[float, Point]]) -> list[tuple[int, float, Point]]:
    """Each point with the uppermost lane in which it hides none on its left."""
    last: list[float] = []
    placed = []
    for x, point in sorted(points, key=lambda found: found[0]):
        lane = next((n for n, before in enumerate(last) if x - before >= _LANE), len(last))
        last[lane : lane + 1] = [x]
        placed.append((lane, x, point))
    return placed


def intervals(rows: Sequence[Interval], unit: str) -> str:
    """A line for each interval; its point is filled where 0 is outside.

    Args:
        rows: from top to bottom.
        unit: what stands under the axis.
    """
    across = _axis(
        [row.label for row in rows], [value for row in rows for value in (row.low, row.high)]
    )
    height = 20
    zero = f'x1="{across(0):.1f}" x2="{across(0):.1f}"'
    parts = [f'<line class="zero" {zero} y1="{_TOP}" y2="{_TOP + height * len(rows)}"/>']
    for number, row in enumerate(rows):
        y = _TOP + height * (number + 0.5)
        parts.append(_row(across, row.label, _TOP + height * number, height, number))
        parts.append(
            f'<line class="interval" x1="{across(row.low):.1f}" x2="{across(row.high):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        title = f"{row.label}: {row.value:+.2f}, {row.low:+.2f} to {row.high:+.2f}"
        parts.append(mark(0, row.low > 0 or row.high < 0, across(row.value), y, title))
    return _svg(parts, across, height * len(rows), unit)


def bars(rows: Sequence[tuple[str, Sequence[float]]], kinds: Sequence[str], unit: str) -> str:
    """Stacked bars, each kind with its hatching, of `HATCHINGS`.

    Args:
        rows: labels and as many values as there are kinds.
        kinds: names; three at most.
        unit: what stands under the axis.
    """
    across = _axis([label for label, _ in rows], [sum(values) for _, values in rows])
    height, parts = 34, []
    for number, (label, values) in enumerate(rows):
        parts.append(_row(across, label, _TOP + height * number, height, number))
        start = 0.0
        for kind, (name, value) in enumerate(zip(kinds, values, strict=True)):
            left, right = across(start), across(start + value)
            place = f'x="{left:.1f}" width="{right - left:.1f}" y="{_TOP + height * number + 7}"'
            about = f"<title>{escape(label)}: {escape(name)} {value:.1f}</title>"
            parts.append(f'<rect class="bar k{kind}" {place} height="20">{about}</rect>')
            start += value
    return _svg(parts, across, height * len(rows), unit)


def bar_key(kind: int) -> str:
    """A piece of a bar by itself, to stand before its name."""
    return (
        '<svg class="key" viewBox="0 0 16 16" aria-hidden="true">'
        f'<rect class="bar k{kind}" x="1" y="2" width="14" height="12"/></svg>'
    )


def _row(across: Axis, label: str, y: float, height: float, number: int) -> str:
    band = f'<rect class="band" x="{across.start}" width="{_WIDTH}" y="{y}" height="{height}"/>'
    text = _text(across.start - 8, y + height / 2 + 4, label, "end")
    return (band if number % 2 == 0 else "") + text


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str], across: Axis, height: float, unit: str) -> str:
    bottom = _TOP + height
    grid = [
        f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{_TOP}" '
        f'y2="{bottom}"/>' + _text(across(tick), bottom + 15, f"{tick:g}")
        for tick in across.ticks
    ]
    name = _text(across.start + _WIDTH / 2, bottom + 33, unit)
    width = across.end + _RIGHT
    # Bands first, so that the grid is seen on them; marks last.
    bands = [part for part in parts if part.startswith(('<rect class="band"', "<text"))]
    others = [part for part in parts if part not in bands]
    size = f'width="{width}" viewBox="0 0 {width} {bottom + _BOTTOM}"'
    return (
        f'<svg class="plot" {size} role="img" aria-label="{escape(unit)}">'
        + "".join([*bands, *grid, *others, name])
        + "</svg>"
    )
