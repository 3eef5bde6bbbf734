"""Tables of a comparison, for Markdown and HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from espnet_mlma.evaluation.compare.comparison import Comparison, CorpusScore, SystemPair
from espnet_mlma.evaluation.compare.normalisers import NAMES as NORMALISERS
from espnet_mlma.evaluation.compare.published import ANY, METRICS, Figure
from espnet_mlma.evaluation.compare.rows import SystemRow, system_rows
from espnet_mlma.evaluation.compare.statistics import (
    MIN_SEGMENTS,
    MIN_SPEAKERS,
    RESAMPLES,
    Bootstrap,
)
from espnet_mlma.evaluation.compare.systems import System
from espnet_mlma.text import LANGUAGES, order_languages
from espnet_mlma.text.language import NAMES as LANGUAGE_NAMES

# Head and meaning of each column, in order.
CORPORA = {
    "ls": ("LS", "test sets of LibriSpeech, one or both"),
    "ls-clean": ("LS clean", "LibriSpeech test-clean"),
    "ls-other": ("LS other", "LibriSpeech test-other"),
    "cv": ("CV", "Common Voice"),
    "vp": ("VP", "VoxPopuli"),
    "mls": ("MLS", "Multilingual LibriSpeech"),
    "fl": ("FL", "FLEURS"),
    "euro": ("Euro", "EuroSpeech"),
    "mini": ("mini", "the demonstration's eSpeak voices"),
    "minien": ("mini en", "the translator's eSpeak voices"),
    "syn": ("synthetic", "free text spoken by eSpeak"),
    "ami": ("AMI", "AMI meetings"),
    "earnings22": ("E22", "Earnings-22"),
    "gigaspeech": ("Giga", "GigaSpeech"),
    "spgispeech": ("SPGI", "SPGISpeech"),
    "tedlium": ("TED", "TED-LIUM"),
    "wsj": ("WSJ", "Wall Street Journal"),
    "swbd": ("SWBD", "Switchboard"),
}
_LEAST_P = 0.001  # smaller ones are printed as "<0.001"
_GIB = 2**30
_TESTS = (
    "differences are in percentage points. The 95 % interval is a bootstrap over speakers, "
    f"{RESAMPLES} resamplings, both systems together, widened for the number of speakers; with "
    f"fewer than {MIN_SPEAKERS} there is none. p is two-sided and not corrected for the number of "
    "rows; ≤ means that no resampling has the opposite sign, so that more speakers could show a "
    "smaller p. MAPSSWE is NIST's matched pairs sentence-segment word error test; its normal "
    f"approximation is rough below about 50 segments, and there is no test below {MIN_SEGMENTS}."
)


@dataclass(frozen=True)
class Cell:
    """A text with the keys of its caveats."""

    text: str
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        key: `wer` and a language, `pair` and its names, `counts`, ...
        title: heading.
        note: text below the title.
        columns: heads.
        names: number of text columns; the others are numbers.
        rows: cells.
        systems: the system of each row, for its mark; empty except in tables of WER.
    """

    key: tuple[str, ...]
    title: str
    note: str
    columns: tuple[str, ...]
    names: int
    rows: tuple[tuple[Cell, ...], ...]
    systems: tuple[SystemRow, ...] = ()


@dataclass
class Notes:
    """Letters of caveats and numbers of sources, in the order of their first use."""

    caveats: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def letters(self, keys: Iterable[str]) -> list[str]:
        """Return the letters of caveats: a to z, then aa."""
        return [self._letter(_place(self.caveats, key)) for key in keys]

    def number(self, source: str) -> int:
        """Return the number of a source, from 1."""
        return _place(self.sources, source) + 1

    def _letter(self, place: int) -> str:
        return "abcdefghijklmnopqrstuvwxyz"[place % 26] * (place // 26 + 1)


def _place(keys: list[str], key: str) -> int:
    if key not in keys:
        keys.append(key)
    return keys.index(key)


def _size_texts(parameters: int | None, hours: float | None) -> tuple[str, str]:
    """Format parameters in millions, and hours."""
    return (
        "" if parameters is None else significant(parameters / 1e6, 4),
        "" if hours is None else significant(hours, 2),
    )


def grids(comparison: Comparison, notes: Notes) -> Iterator[Grid]:
    """Yield all tables in order.

    Args:
        comparison: the systems and figures.
        notes: collects the cited sources; caveats are added when cells are rendered.
    """
    for lang in order_languages([*LANGUAGES, *(score.lang for score in comparison.scores)]):
        if rows := system_rows(comparison, lang):
            yield language_grid(lang, rows, notes)
    if comparison.scores:
        yield counts_grid(comparison.scores)
    for names, pairs in groupby(comparison.pairs, key=lambda p: (p.first, p.second, p.normaliser)):
        yield pairs_grid(names, list(pairs))
    if comparison.systems:
        yield cost_grid(comparison.systems)
    if others := [figure for figure in comparison.figures if figure.metric != "wer"]:
        yield others_grid(comparison, others, notes)


def language_grid(lang: str, rows: Sequence[SystemRow], notes: Notes) -> Grid:
    """Make the table of WER of all systems by corpus."""
    corpora = in_order({corpus for row in rows for corpus in row.values})
    known = [corpus for corpus in corpora if corpus in CORPORA]
    meanings = "; ".join("{} is {}".format(*CORPORA[corpus]) for corpus in known)
    return Grid(
        ("wer", lang),
        f"{LANGUAGE_NAMES.get(lang, lang)} ({lang}), WER (%)",
        f"{meanings}." if meanings else "",
        ("System", "Normaliser", "Source", "M", "Hours", *map(head, corpora)),
        3,
        tuple(
            (
                Cell(row.system, row.caveats),
                Cell(row.normaliser),
                Cell(_cited(row, notes)),
                *map(Cell, _size_texts(row.parameters, row.training_hours)),
                *(_wer(row, corpus) for corpus in corpora),
            )
            for row in rows
        ),
        tuple(rows),
    )


def _cited(row: SystemRow, notes: Notes) -> str:
    cited = "here" if row.source is None else f"[{notes.number(row.source)}]"
    if row.size_source in (None, row.source):
        return cited
    return f"{cited}, size [{notes.number(row.size_source)}]"


def _wer(row: SystemRow, corpus: str) -> Cell:
    if corpus not in row.values:
        return Cell("")
    value, caveats = row.values[corpus]
    return Cell(rate(value) if row.source is None else as_printed(value), caveats)


def counts_grid(scores: Sequence[CorpusScore]) -> Grid:
    """Make the table of substitutions, deletions and insertions of systems decoded here."""
    return Grid(
        ("counts",),
        "Errors of systems decoded here",
        "Sub, Del and Ins are words. A missing hypothesis counts as deletions.",
        ("System", "Normaliser", "Language", "Corpus", "WER", "CER", "Sub", "Del", "Ins")
        + ("Words", "Utterances", "Missing"),
        4,
        tuple(
            tuple(map(Cell, (s.system, s.normaliser, s.lang, head(s.corpus))))
            + (Cell(rate(s.words.rate)), Cell(rate(s.chars.rate)))
            + tuple(
                Cell(str(n))
                for n in (s.words.sub, s.words.del_, s.words.ins, s.words.reference)
                + (s.sentences, s.missing)
            )
            for s in scores
        ),
    )


def pairs_grid(names: tuple[str, str, str], pairs: Sequence[SystemPair]) -> Grid:
    """Make the table of tests of two systems."""
    first, second, normaliser = names
    return Grid(
        ("pair", *names),
        f"{first} minus {second}, normaliser: {normaliser}",
        f"Below 0, {first} has fewer errors; {_TESTS}",
        ("Language", "Corpus", "Utterances", "Speakers", f"WER {first}", f"WER {second}")
        + ("ΔWER", "95 %", "p", "ΔCER", "95 %", "p")
        + ("Segments", "MAPSSWE z", "p"),
        2,
        tuple(map(_pair, pairs)),
    )


def _pair(pair: SystemPair) -> tuple[Cell, ...]:
    figures = [str(pair.sentences), str(pair.speakers), rate(pair.first_wer), rate(pair.second_wer)]
    for test in (pair.wer, pair.cer):
        at_most = "≤" if test.is_most and test.p >= _LEAST_P else ""
        figures += [f"{test.difference:+.2f}", _interval(test), at_most + probability(test.p)]
    mapsswe = pair.mapsswe
    figures += [str(mapsswe.segments), _z(mapsswe.z), probability(mapsswe.p)]
    return (Cell(pair.lang), Cell(head(pair.corpus), pair.caveats), *map(Cell, figures))


def cost_grid(systems: Sequence[System]) -> Grid:
    """Make the table of size, speed, memory and cost."""
    runs = {(s.measured.machine, s.measured.run) for s in systems if s.measured}
    machines = {machine for machine, _ in runs}
    what = "on different machines" if len(machines) > 1 else "in different runs"
    unlike = f" They were measured {what}, so do not compare speed and cost."
    return Grid(
        ("cost",),
        "Size and cost of systems decoded here",
        "Speed, memory and cost need a measured.json in the decoding folder, written by "
        "mlma recipe measure." + (unlike if len(runs) > 1 else ""),
        ("System", "Machine", "M", "Training hours", "Audio (s)", "RTF", "x real time")
        + ("Peak memory (GiB)", "USD per hour of audio"),
        2,
        tuple(tuple(map(Cell, _cost(system))) for system in systems),
    )


def _cost(system: System) -> tuple[str, ...]:
    measured, size = system.measured, _size_texts(system.parameters, system.training_hours)
    if measured is None:
        return (system.name, "", *size, *[""] * 5)
    peak, price = measured.peak_bytes, measured.usd_per_machine_hour
    return (
        system.name,
        measured.machine,
        *size,
        significant(measured.audio_seconds, 2),
        f"{measured.rtf:.2g}",
        significant(1 / measured.rtf, 3),
        "" if peak is None else f"{peak / _GIB:.2f}",
        "" if price is None else f"{price * measured.rtf:.2g}",
    )


def others_grid(comparison: Comparison, figures: Sequence[Figure], notes: Notes) -> Grid:
    """Make the table of published figures other than the WER of a language and corpus."""
    return Grid(
        ("others",),
        "Other published figures",
        "",
        ("System", "What", "Language", "Corpus", "Source", "Value"),
        5,
        tuple(
            (
                Cell(comparison.published.systems[figure.system].name),
                Cell(METRICS[figure.metric]),
                Cell(figure.lang),
                Cell("" if figure.corpus == ANY else head(figure.corpus)),
                Cell(f"[{notes.number(figure.source)}]"),
                Cell(as_printed(figure.value), figure.caveats),
            )
            for figure in figures
        ),
    )


def introduction(comparison: Comparison) -> list[str]:
    """List the paragraphs above the tables."""
    paragraphs = []
    if comparison.systems:
        paragraphs += [
            f"Normaliser {name} is {NORMALISERS[name]}." for name in comparison.normalisers
        ]
        paragraphs.append(
            "References are those of the recipe; stage 1 removed their punctuation and case."
        )
    paragraphs += comparison.apart
    if comparison.figures:
        paragraphs.append(
            "Published figures are of whole test sets, with the normaliser of their source; they "
            "are not tested. Letters beside names and figures refer to the caveats below."
        )
    return paragraphs


def in_order(corpora: Iterable[str]) -> list[str]:
    """Sort corpora by column; unknown ones come last."""
    known = list(CORPORA)
    return sorted(corpora, key=lambda c: (known.index(c) if c in known else len(known), c))


def head(corpus: str) -> str:
    """Return the head of a corpus's column."""
    return CORPORA[corpus][0] if corpus in CORPORA else corpus


def rate(value: float) -> str:
    """Format a rate in per cent with two decimals, as the paper's most precise tables do."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def significant(value: float, digits: int) -> str:
    """Format a positive number with at least this many significant digits."""
    return f"{value:.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def as_printed(value: float) -> str:
    """Format a published figure with at least one decimal."""
    text = f"{value:g}"
    return text if "." in text else f"{text}.0"


def probability(value: float) -> str:
    """Format a p-value."""
    return "-" if math.isnan(value) else f"<{_LEAST_P}" if value < _LEAST_P else f"{value:.3f}"


def _interval(test: Bootstrap) -> str:
    return "-" if math.isnan(test.low) else f"{test.low:+.2f} to {test.high:+.2f}"


def _z(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"
