"""Comparisons in Markdown."""

from __future__ import annotations

from espnet_mlma.evaluation.compare.comparison import Comparison
from espnet_mlma.evaluation.compare.table import Cell, Grid, Notes, grids, introduction

# Superscripts that terminals show too; Unicode has no q.
_HIGH = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")


def render(comparison: Comparison) -> str:
    """Render a comparison."""
    notes = Notes()
    parts = ["# Comparison of systems", *introduction(comparison)]
    parts += [_grid(grid, notes) for grid in grids(comparison, notes)]
    if notes.caveats:
        texts = comparison.published.caveats
        caveats = zip(notes.letters(notes.caveats), notes.caveats, strict=True)
        parts += ["## Caveats", "\n".join(f"- {mark}: {texts[key]}" for mark, key in caveats)]
    if notes.sources:
        texts = comparison.published.sources
        sources = enumerate(notes.sources, 1)
        parts += ["## Sources", "\n".join(f"{number}. {texts[key]}" for number, key in sources)]
    return "\n\n".join(parts) + "\n"


def _grid(grid: Grid, notes: Notes) -> str:
    rule = "|" + ":--|" * grid.names + "--:|" * (len(grid.columns) - grid.names)
    rows = [f"| {' | '.join(_cell(cell, notes) for cell in row)} |" for row in grid.rows]
    heads = " | ".join(map(_plain, grid.columns))
    table = "\n".join([f"| {heads} |", rule, *rows])
    return "\n\n".join(part for part in (f"## {grid.title}", grid.note, table) if part)


def _cell(cell: Cell, notes: Notes) -> str:
    marks = " ".join(letter.translate(_HIGH) for letter in notes.letters(cell.caveats))
    return _plain(cell.text) + marks.replace(" ", "\N{THIN SPACE}")


def _plain(text: str) -> str:
    """Escape what would separate cells."""
    return text.replace("|", "\\|")
