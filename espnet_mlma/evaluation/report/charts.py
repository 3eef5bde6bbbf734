"""Charts as SVG that a style sheet colours; every text in them is escaped.

matplotlib's would carry their own colours, which cannot follow light and dark, and a path for every
letter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from espnet_mlma.evaluation.axes import Axis, ticks
from espnet_mlma.evaluation.report.groups import Group
from espnet_mlma.evaluation.report.training import Curve

_WIDTH = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 48, 18, 38
_ROW = 34  # height of a language among the speakers
_LARGEST_DOT = 8.0
_LABEL_GAP = 14


def curve(of: Curve) -> Markup:
    """A line for training and one for validation over the epochs.

    Args:
        of: with at least one point; values are not negative.
    """
    epochs = of.epochs
    height = 230
    x = Axis([min(epochs), max(epochs)], _LEFT + 8, _WIDTH - _RIGHT)
    values = [value for line in of.lines.values() for _, value in line]
    y = Axis(ticks(values), height - _BOTTOM, _TOP)
    parts = [_across(y(tick), f"{tick:.3g}") for tick in y.ticks]
    whole = range(min(epochs), max(epochs) + 1, math.ceil(len(epochs) / 12))
    parts += [_below(x(epoch), str(epoch), height) for epoch in whole]
    parts.append(_title_below("epoch", height))
    ends = _apart({part: y(line[-1][1]) for part, line in of.lines.items()})
    for part, line in of.lines.items():
        places = [(x(epoch), y(value)) for epoch, value in line]
        parts.append(_polyline(part, places))
        parts.append(
            Markup('<text class="{0}" x="{1}" y="{2}">{0}</text>').format(
                part, places[-1][0] + 8, ends[part] + 4
            )
        )
    return _svg(f"{of.name} over {len(epochs)} epochs; the table below has it", height, parts)


def speakers(groups: Sequence[Group]) -> Markup:
    """A dot for each speaker, in a row for each language, at its word error rate.

    Args:
        groups: one for each speaker, with at least one word in the references of all.
    """
    known = [of for of in groups if of.words.reference]
    languages = list(dict.fromkeys(of.lang for of in known))
    height = _TOP + _ROW * len(languages) + _BOTTOM
    most_words = max(of.words.reference for of in known)
    rates = [of.words.rate for of in known if of.words.total]
    x = Axis(ticks(rates or [100.0]), _LEFT, _WIDTH - 12)
    parts = [_below(x(tick), f"{tick:g}", height, grid=True) for tick in x.ticks]
    parts.append(_title_below("word error rate, %", height))
    for number, lang in enumerate(languages):
        middle = _TOP + _ROW * (number + 0.5)
        parts.append(
            Markup('<text class="row" x="{}" y="{}">{}</text>').format(_LEFT - 12, middle + 4, lang)
        )
        for of in (of for of in known if of.lang == lang):
            radius = max(2.5, _LARGEST_DOT * math.sqrt(of.words.reference / most_words))
            parts.append(
                Markup(
                    '<circle class="dot" cx="{}" cy="{}" r="{:.1f}"><title>{}</title></circle>'
                ).format(
                    x(of.words.rate),
                    middle,
                    radius,
                    f"{of.name}: {of.words.rate:.1f} % of {of.words.reference} words",
                )
            )
    name = f"Word error rates of {len(known)} speakers in {len(languages)} languages"
    return _svg(name, height, parts)


def _apart(places: dict[str, float]) -> dict[str, float]:
    """Places of labels, moved up so that none lies on another."""
    moved: dict[str, float] = {}
    for name, place in sorted(places.items(), key=lambda item: -item[1]):
        moved[name] = min([place, *(below - _LABEL_GAP for below in moved.values())])
    return moved


def _polyline(part: str, places: Sequence[tuple[float, float]]) -> Markup:
    line = Markup('<polyline class="{}" points="{}"/>').format(
        part, " ".join(f"{x},{y}" for x, y in places)
    )
    shape = '<circle class="{}" cx="{}" cy="{}" r="3.5"/>'
    if part == "valid":
        shape = '<rect class="{}" x="{}" y="{}" width="7" height="7"/>'
        places = [(round(x - 3.5, 1), round(y - 3.5, 1)) for x, y in places]
    return line + Markup("").join(Markup(shape).format(part, x, y) for x, y in places)


def _across(y: float, label: str) -> Markup:
    return Markup(
        '<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>'
        '<text class="row" x="{}" y="{}">{}</text>'
    ).format(_LEFT, y, _WIDTH - _RIGHT, y, _LEFT - 8, y + 4, label)


def _below(x: float, label: str, height: int, grid: bool = False) -> Markup:
    line = Markup('<line class="grid" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/>').format(
        x, _TOP, height - _BOTTOM
    )
    text = Markup('<text class="column" x="{}" y="{}">{}</text>').format(
        x, height - _BOTTOM + 16, label
    )
    return line + text if grid else text


def _title_below(title: str, height: int) -> Markup:
    return Markup('<text class="column" x="{}" y="{}">{}</text>').format(
        (_LEFT + _WIDTH) / 2, height - 6, title
    )


def _svg(name: str, height: int, parts: Sequence[Markup]) -> Markup:
    start = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}">').format(
        name, _WIDTH, height
    )
    return start + Markup("").join(parts) + Markup("</svg>")
