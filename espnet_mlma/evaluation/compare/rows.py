"""Rows of the tables of WER: systems decoded here, then published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from espnet_mlma.evaluation.compare.comparison import Comparison
from espnet_mlma.evaluation.compare.published import ALL, Figure
from espnet_mlma.evaluation.compare.systems import System

ITS_OWN = "its own"  # the normaliser of a published figure


@dataclass(frozen=True)
class SystemRow:
    """A system in the table of a language.

    Attributes:
        label: identifies the mark in plots; the same for a system that two sources quote.
        system: name.
        normaliser: name.
        parameters, training_hours: None: unknown.
        caveats: keys, of the system; those of a corpus are in `values`.
        source: key; None: decoded here.
        size_source: source of parameters and hours; None: known here, or unknown.
        values: WER and caveat keys by corpus.
    """

    label: str
    system: str
    normaliser: str
    parameters: int | None
    training_hours: float | None
    caveats: tuple[str, ...]
    source: str | None
    size_source: str | None
    values: Mapping[str, tuple[float, tuple[str, ...]]]


def system_rows(comparison: Comparison, lang: str) -> list[SystemRow]:
    """List the rows of a language: systems decoded here, then published ones."""
    return [*_own_rows(comparison, lang), *_quoted_rows(comparison, lang)]


def _own_rows(comparison: Comparison, lang: str) -> Iterator[SystemRow]:
    several = len(comparison.normalisers) > 1
    for system in comparison.systems:
        parameters, hours, source = _size(system)
        common = system.caveats.get(ALL, ())
        for normaliser in comparison.normalisers:
            values = {
                score.corpus: (
                    score.words.rate,
                    tuple(c for c in system.caveats_on(lang, score.corpus) if c not in common),
                )
                for score in comparison.scores
                if (score.system, score.normaliser, score.lang) == (system.name, normaliser, lang)
                and score.corpus != ALL
            }
            if values:
                yield SystemRow(
                    f"{system.name}, {normaliser}" if several else system.name,
                    system.name,
                    normaliser,
                    parameters,
                    hours,
                    common,
                    source=None,
                    size_source=source,
                    values=values,
                )


def _size(system: System) -> tuple[int | None, float | None, str | None]:
    """Return parameters, training hours, and the source if one of them is not known here."""
    quoted, parameters, hours = system.published, system.parameters, system.training_hours
    if quoted is None:
        return parameters, hours, None
    sizes = parameters or quoted.parameters, hours or quoted.training_hours
    return *sizes, None if sizes == (parameters, hours) else quoted.source


def _quoted_rows(comparison: Comparison, lang: str) -> Iterator[SystemRow]:
    figures = [f for f in comparison.figures if f.metric == "wer" and f.lang == lang]
    by_row: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        by_row.setdefault((figure.system, figure.source), []).append(figure)
    for (key, source), of_row in by_row.items():
        system = comparison.published.systems[key]
        of_corpora = {c for corpus, keys in system.caveats.items() if corpus != ALL for c in keys}
        common = [
            caveat
            for caveat in of_row[0].caveats
            if caveat not in of_corpora and all(caveat in figure.caveats for figure in of_row)
        ]
        yield SystemRow(
            system.name,
            system.name,
            ITS_OWN,
            system.parameters,
            system.training_hours,
            tuple(common),
            source,
            system.source,
            {f.corpus: (f.value, tuple(c for c in f.caveats if c not in common)) for f in of_row},
        )
