"""The comparison as one page of HTML that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from espnet_mlma.evaluation.compare import plot
from espnet_mlma.evaluation.compare.comparison import Comparison, Pair
from espnet_mlma.evaluation.compare.published import ALL
from espnet_mlma.evaluation.compare.table import (
    Cell,
    Grid,
    Line,
    Notes,
    grids,
    head,
    in_order,
    introduction,
    lines,
)
from espnet_mlma.text import LANGUAGES

STYLE = Path(__file__).with_name("page.css")
_KINDS = ("substitutions", "deletions", "insertions")


def render(comparison: Comparison) -> str:
    """The whole page."""
    notes = Notes()
    by_language = {lang: lines(comparison, lang) for lang in LANGUAGES}
    marks: dict[str, int] = {}
    for line in (line for of_language in by_language.values() for line in of_language):
        marks.setdefault(line.label, len(marks))
    plots = dict(_plots(comparison, by_language, marks))
    tables = list(grids(comparison, notes))
    sections = [_section(grid, plots, marks, notes) for grid in tables]
    contents = "".join(
        f'<li><a href="#{quote(_anchor(grid))}">{escape(grid.title)}</a></li>' for grid in tables
    )
    intro = "".join(f"<p>{escape(text)}</p>" for text in introduction(comparison))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>Comparison of systems</title>\n'
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"{plot.HATCHINGS}\n<main>\n"
        f"<h1>Comparison of systems</h1>\n{intro}\n<nav><ul>{contents}</ul></nav>\n"
        + "\n".join([*sections, _notes(comparison, notes)])
        + "\n</main>\n</body>\n</html>\n"
    )


def _plots(
    comparison: Comparison, by_language: Mapping[str, list[Line]], marks: Mapping[str, int]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Plots by the keys of the tables they belong to."""
    for lang, of_language in by_language.items():
        if any(math.isfinite(rate) for line in of_language for rate, _ in line.values.values()):
            yield ("wer", lang), _language_plot(of_language, marks)
    for (first, second, normaliser), pairs in groupby(
        comparison.pairs, key=lambda p: (p.first, p.second, p.normaliser)
    ):
        rows = [
            plot.Interval(_scope(p), p.wer.low, p.wer.difference, p.wer.high)
            for p in pairs
            if not math.isnan(p.wer.low)
        ]
        unit = f"WER of {first} less that of {second}, percentage points; filled: 0 is outside"
        if rows:
            yield ("pair", first, second, normaliser), plot.intervals(rows, unit)
    if any(score.words.reference for score in comparison.scores):
        yield ("counts",), _counts_plot(comparison)


def _scope(pair: Pair) -> str:
    return ALL if pair.lang == ALL else f"{pair.lang} {head(pair.corpus)}"


def _language_plot(of_language: list[Line], marks: Mapping[str, int]) -> str:
    corpora = in_order({corpus for line in of_language for corpus in line.values})
    rows = [
        (
            head(corpus),
            [
                plot.Point(
                    marks[line.label], line.source is None, value, f"{line.label}: {value:g}"
                )
                for line in of_language
                for value, _ in [line.values.get(corpus, (math.nan, ()))]
                if not math.isnan(value)
            ],
        )
        for corpus in corpora
    ]
    return plot.dots(rows, "WER (%); filled: measured here, hollow: quoted")


def _counts_plot(comparison: Comparison) -> str:
    """Kinds of error over everything that a system decoded."""
    rows = []
    for system in comparison.systems:
        for normaliser in comparison.normalisers:
            own = [
                score
                for score in comparison.scores
                if (score.system, score.normaliser) == (system.name, normaliser)
            ]
            # The last is the sum over most: scopes go from corpora to languages to all.
            words = own[-1].words
            if words.reference:
                label = system.name + (f", {normaliser}" if len(comparison.normalisers) > 1 else "")
                counts = (words.sub, words.del_, words.ins)
                rows.append((label, [100 * count / words.reference for count in counts]))
    keys = "".join(f"<span>{plot.bar_key(kind)}{name}</span>" for kind, name in enumerate(_KINDS))
    unit = "per cent of all reference words"
    return f'<p class="legend">{keys}</p>' + plot.bars(rows, _KINDS, unit)


def _section(
    grid: Grid, plots: Mapping[tuple[str, ...], str], marks: Mapping[str, int], notes: Notes
) -> str:
    figure = f'<figure tabindex="0">{plots[grid.key]}</figure>' if grid.key in plots else ""
    note = f'<p class="note">{escape(grid.note)}</p>' if grid.note else ""
    kinds = ["name" if column < grid.names else "number" for column in range(len(grid.columns))]
    heads = "".join(
        f'<th scope="col" class="{kind}">{escape(column)}</th>'
        for kind, column in zip(kinds, grid.columns, strict=True)
    )
    rows = []
    for number, row in enumerate(grid.rows):
        cells = [
            f'<td class="{kind}">{_cell(cell, notes)}</td>'
            for kind, cell in zip(kinds, row, strict=True)
        ]
        if grid.lines:
            line = grid.lines[number]
            key = plot.key(marks[line.label], line.source is None)
            cells[0] = cells[0].replace('<td class="name">', f'<td class="name">{key}', 1)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<section id="{_anchor(grid)}">\n<h2>{escape(grid.title)}</h2>\n{note}{figure}\n'
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n</section>"
    )


def _anchor(grid: Grid) -> str:
    # A slash parts what a hyphen could be within.
    return "/".join(quote(part, safe="") for part in grid.key)


def _cell(cell: Cell, notes: Notes) -> str:
    marks = zip(notes.letters(cell.caveats), cell.caveats, strict=True)
    links = " ".join(f'<a href="#caveat-{key}">{letter}</a>' for letter, key in marks)
    return escape(cell.text) + (f"<sup>{links}</sup>" if links else "")


def _notes(comparison: Comparison, notes: Notes) -> str:
    parts = []
    if notes.caveats:
        texts = comparison.published.caveats
        items = "".join(
            f'<li id="caveat-{key}"><b>{letter}</b> {escape(texts[key])}</li>'
            for letter, key in zip(notes.letters(notes.caveats), notes.caveats, strict=True)
        )
        parts.append(f'<section>\n<h2>Caveats</h2>\n<ul class="caveats">{items}</ul>\n</section>')
    if notes.sources:
        texts = comparison.published.sources
        items = "".join(f"<li>{escape(texts[key])}</li>" for key in notes.sources)
        parts.append(f"<section>\n<h2>Sources</h2>\n<ol>{items}</ol>\n</section>")
    return "\n".join(parts)
