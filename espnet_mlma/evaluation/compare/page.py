"""Comparisons as one HTML page with plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from urllib.parse import quote

from markupsafe import Markup

from espnet_mlma.evaluation.compare.comparison import Comparison, SystemPair
from espnet_mlma.evaluation.compare.published import ALL
from espnet_mlma.evaluation.compare.rows import SystemRow
from espnet_mlma.evaluation.compare.table import Grid, Notes, grids, head, in_order, introduction
from espnet_mlma.pages import render_page, svg


def render(comparison: Comparison) -> str:
    """Render a comparison."""
    notes = Notes()
    tables = list(grids(comparison, notes))
    marks: dict[str, int] = {}
    for row in (row for grid in tables for row in grid.systems):
        marks.setdefault(row.label, len(marks))
    filters = {
        "anchor": _anchor,
        "bar_key": svg.bar_key,
        "mark_key": lambda row: svg.mark_key(marks[row.label], row.source is None),
    }
    return render_page(
        "compare",
        filters,
        title="Comparison of systems",
        introduction=introduction(comparison),
        grids=tables,
        plots=dict(_plots(comparison, tables, marks)),
        hatchings=svg.hatchings(),
        kinds=svg.KINDS,
        notes=notes,
        published=comparison.published,
    )


def _anchor(grid: Grid) -> str:
    # Names may have hyphens, but a quoted name has no slash.
    return "/".join(quote(part, safe="") for part in grid.key)


def _plots(
    comparison: Comparison, tables: list[Grid], marks: Mapping[str, int]
) -> Iterator[tuple[tuple[str, ...], Markup]]:
    """Yield plots by the key of their table."""
    for grid in tables:
        values = [rate for row in grid.systems for rate, _ in row.values.values()]
        if any(map(math.isfinite, values)):
            yield grid.key, _language_plot(grid.systems, marks)
    for (first, second, normaliser), pairs in groupby(
        comparison.pairs, key=lambda p: (p.first, p.second, p.normaliser)
    ):
        rows = [
            svg.Interval(_scope(p), p.wer.low, p.wer.difference, p.wer.high)
            for p in pairs
            if not math.isnan(p.wer.low)
        ]
        unit = f"WER of {first} minus {second}, percentage points; filled: 0 is outside"
        if rows:
            yield ("pair", first, second, normaliser), svg.intervals(rows, unit)
    if any(score.words.reference for score in comparison.scores):
        yield ("counts",), _counts_plot(comparison)


def _scope(pair: SystemPair) -> str:
    return ALL if pair.lang == ALL else f"{pair.lang} {head(pair.corpus)}"


def _language_plot(systems: tuple[SystemRow, ...], marks: Mapping[str, int]) -> Markup:
    rows = []
    for corpus in in_order({corpus for row in systems for corpus in row.values}):
        known = [(row, row.values[corpus][0]) for row in systems if corpus in row.values]
        points = [
            svg.Point(marks[row.label], row.source is None, value, f"{row.label}: {value:g}")
            for row, value in known
            if not math.isnan(value)
        ]
        rows.append((head(corpus), points))
    return svg.dots(rows, "WER (%); filled: decoded here, hollow: published")


def _counts_plot(comparison: Comparison) -> Markup:
    """Plot kinds of error over everything that a system decoded."""
    rows = []
    # The last score of a system is its largest sum: scopes go from corpora to languages to all.
    sums = {(score.system, score.normaliser): score.words for score in comparison.scores}
    several = len(comparison.normalisers) > 1
    for (system, normaliser), words in sums.items():
        if words.reference:
            counts = {"sub": words.sub, "del": words.del_, "ins": words.ins}
            shares = {kind: 100 * count / words.reference for kind, count in counts.items()}
            rows.append((system + (f", {normaliser}" if several else ""), shares))
    return svg.bars(rows, "per cent of all reference words")
