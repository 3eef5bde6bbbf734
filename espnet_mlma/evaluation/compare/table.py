"""The comparison as tables, which Markdown and HTML both print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from espnet_mlma.evaluation.compare.comparison import Comparison, Pair, Score
from espnet_mlma.evaluation.compare.normalisers import NAMES as NORMALISERS
from espnet_mlma.evaluation.compare.published import ALL, ANY, METRICS, Figure
from espnet_mlma.evaluation.compare.statistics import (
    MIN_SEGMENTS,
    MIN_SPEAKERS,
    RESAMPLES,
    Bootstrap,
)
from espnet_mlma.evaluation.compare.systems import System
from espnet_mlma.text import LANGUAGES
from espnet_mlma.text.language import NAMES as LANGUAGE_NAMES

# Column and meaning, in the order of the columns.
CORPORA = {
    "ls": ("LS", "test sets of LibriSpeech, one or both"),
    "ls-clean": ("LS clean", "LibriSpeech test-clean"),
    "ls-other": ("LS other", "LibriSpeech test-other"),
    "cv": ("CV", "Common Voice"),
    "vp": ("VP", "VoxPopuli"),
    "mls": ("MLS", "Multilingual LibriSpeech"),
    "fl": ("FL", "FLEURS"),
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
ITS_OWN = "its own"  # the normaliser of a quoted figure
_LEAST_P = 0.001  # of those that are printed
_GIB = 2**30
_HOW_TESTED = (
    f"differences are in percentage points. The 95 % interval is of {RESAMPLES} resamplings of the "
    "speakers, both systems' together, widened for their number; there is none with fewer than "
    f"{MIN_SPEAKERS}. p is two-sided, and not corrected for the number of rows; with ≤ no "
    "resampling is on the other side of zero, and so many speakers cannot show less. MAPSSWE is "
    "NIST's matched pairs sentence-segment word error test; with fewer than about 50 segments its "
    f"normal distribution is rough, and with fewer than {MIN_SEGMENTS} there is none."
)


@dataclass(frozen=True)
class Cell:
    """A text, and keys of the caveats it carries."""

    text: str
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        key: what it is about: `wer` and a language, `pair` and its names, `counts`, ...
        title: of it.
        note: a sentence or two below the title.
        columns: heads.
        names: how many of the columns are texts; the others are numbers.
        rows: as many cells as columns each.
        lines: what each row is about, for plots; empty where it is no system's WER.
    """

    key: tuple[str, ...]
    title: str
    note: str
    columns: tuple[str, ...]
    names: int
    rows: tuple[tuple[Cell, ...], ...]
    lines: tuple[Line, ...] = ()


@dataclass
class Notes:
    """Letters of caveats and numbers of sources, in the order they are first asked for."""

    caveats: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def letters(self, keys: Iterable[str]) -> list[str]:
        """The marks of caveats: a to z, then aa."""
        return [self._letter(_place(self.caveats, key)) for key in keys]

    def number(self, source: str) -> int:
        """The number of a source, from 1."""
        return _place(self.sources, source) + 1

    def _letter(self, place: int) -> str:
        return "abcdefghijklmnopqrstuvwxyz"[place % 26] * (place // 26 + 1)


def _place(keys: list[str], key: str) -> int:
    if key not in keys:
        keys.append(key)
    return keys.index(key)


@dataclass(frozen=True)
class Line:
    """A system's row in the table of a language.

    Attributes:
        label: by it plots know its mark; the same for a system that two sources quote.
        system: name.
        caveats: of the system; those of a corpus are in `values`.
        source: key; None: measured here.
        size_source: key of where parameters and hours are from; None: measured here, or not known.
        values: WER and caveats by corpus.
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


def lines(comparison: Comparison, lang: str) -> list[Line]:
    """The rows of a language: what was measured here, then what is quoted."""
    return [*_own_lines(comparison, lang), *_quoted_lines(comparison, lang)]


def _own_lines(comparison: Comparison, lang: str) -> Iterator[Line]:
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
                yield Line(
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
    """Parameters, hours of training, and the source where one of them is not from here."""
    quoted, parameters, hours = system.published, system.parameters, system.training_hours
    if quoted is None:
        return parameters, hours, None
    sizes = parameters or quoted.parameters, hours or quoted.training_hours
    return *sizes, None if sizes == (parameters, hours) else quoted.source


def _size_texts(parameters: int | None, hours: float | None) -> tuple[str, str]:
    """Millions and hours."""
    return (
        "" if parameters is None else significant(parameters / 1e6, 4),
        "" if hours is None else significant(hours, 2),
    )


def _quoted_lines(comparison: Comparison, lang: str) -> Iterator[Line]:
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
        yield Line(
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


def grids(comparison: Comparison, notes: Notes) -> Iterator[Grid]:
    """All tables, in the order they are printed.

    Args:
        comparison: what is put side by side.
        notes: gets the sources that are cited; caveats get theirs when cells are printed.
    """
    for lang in LANGUAGES:
        if rows := lines(comparison, lang):
            yield language_grid(comparison, lang, rows, notes)
    if comparison.scores:
        yield counts_grid(comparison.scores)
    for names, pairs in groupby(comparison.pairs, key=lambda p: (p.first, p.second, p.normaliser)):
        yield pairs_grid(names, list(pairs))
    if comparison.systems:
        yield cost_grid(comparison.systems)
    if others := [figure for figure in comparison.figures if figure.metric != "wer"]:
        yield others_grid(comparison, others, notes)


def language_grid(comparison: Comparison, lang: str, rows: Sequence[Line], notes: Notes) -> Grid:
    """WER of all systems by corpus."""
    corpora = in_order({corpus for line in rows for corpus in line.values})
    known = [corpus for corpus in corpora if corpus in CORPORA]
    meanings = "; ".join("{} is {}".format(*CORPORA[corpus]) for corpus in known)
    return Grid(
        ("wer", lang),
        f"{LANGUAGE_NAMES[lang]} ({lang}), WER (%)",
        f"{meanings}." if meanings else "",
        ("System", "Normaliser", "Source", "M", "Hours", *map(head, corpora)),
        3,
        tuple(
            (
                Cell(line.system, line.caveats),
                Cell(line.normaliser),
                Cell(_cited(line, notes)),
                *map(Cell, _size_texts(line.parameters, line.training_hours)),
                *(_wer(line, corpus) for corpus in corpora),
            )
            for line in rows
        ),
        tuple(rows),
    )


def _cited(line: Line, notes: Notes) -> str:
    cited = "here" if line.source is None else f"[{notes.number(line.source)}]"
    if line.size_source in (None, line.source):
        return cited
    return f"{cited}, size [{notes.number(line.size_source)}]"


def _wer(line: Line, corpus: str) -> Cell:
    if corpus not in line.values:
        return Cell("")
    value, caveats = line.values[corpus]
    return Cell(rate(value) if line.source is None else as_printed(value), caveats)


def counts_grid(scores: Sequence[Score]) -> Grid:
    """Substitutions, deletions and insertions of what was measured here."""
    return Grid(
        ("counts",),
        "Counts of what was measured here",
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


def pairs_grid(names: tuple[str, str, str], pairs: Sequence[Pair]) -> Grid:
    """Tests between two systems."""
    first, second, normaliser = names
    return Grid(
        ("pair", *names),
        f"{first} less {second}, normaliser: {normaliser}",
        f"Below 0, {first} has fewer errors; {_HOW_TESTED}",
        ("Language", "Corpus", "Utterances", "Speakers", f"WER {first}", f"WER {second}")
        + ("ΔWER", "95 %", "p", "ΔCER", "95 %", "p")
        + ("Segments", "MAPSSWE z", "p"),
        2,
        tuple(map(_pair, pairs)),
    )


def _pair(pair: Pair) -> tuple[Cell, ...]:
    figures = [str(pair.sentences), str(pair.speakers), rate(pair.first_wer), rate(pair.second_wer)]
    for test in (pair.wer, pair.cer):
        at_most = "≤" if test.is_most and test.p >= _LEAST_P else ""
        figures += [f"{test.difference:+.2f}", _interval(test), at_most + probability(test.p)]
    mapsswe = pair.mapsswe
    figures += [str(mapsswe.segments), _z(mapsswe.z), probability(mapsswe.p)]
    return (Cell(pair.lang), Cell(head(pair.corpus), pair.caveats), *map(Cell, figures))


def cost_grid(systems: Sequence[System]) -> Grid:
    """Size, speed, memory and money."""
    runs = {(s.measured.machine, s.measured.run) for s in systems if s.measured}
    machines = {machine for machine, _ in runs}
    what = "on different machines" if len(machines) > 1 else "in different runs"
    unlike = f" They were measured {what}: speed and cost are not to be compared."
    return Grid(
        ("cost",),
        "Size and cost of what was measured here",
        "Speed, memory and cost are empty where the decoding folder has no measured.json, which "
        "decoding with python -m espnet_mlma.evaluation.compare.measure writes; M and hours are "
        "then those of the training's log and data, where they are here."
        + (unlike if len(runs) > 1 else ""),
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
    """Published figures that are no WER of one language and corpus."""
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
    """What a reader has to know before the tables."""
    said = []
    if comparison.systems:
        said += [f"Normaliser {name} is {NORMALISERS[name]}." for name in comparison.normalisers]
        said.append(
            "References are those of the recipe, from which stage 1 has taken punctuation and case."
        )
    said += comparison.apart
    if comparison.figures:
        said.append(
            "Quoted figures are of whole test sets, by the normaliser of their source, and are no "
            "part of any test of significance. A letter beside a name or figure is a caveat below."
        )
    return said


def in_order(corpora: Iterable[str]) -> list[str]:
    """Corpora in the order of the columns; those that are unknown come last."""
    known = list(CORPORA)
    return sorted(corpora, key=lambda c: (known.index(c) if c in known else len(known), c))


def head(corpus: str) -> str:
    """The short name of a corpus."""
    return CORPORA[corpus][0] if corpus in CORPORA else corpus


def rate(value: float) -> str:
    """A rate in per cent, with the two decimals of the paper's closest tables."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def significant(value: float, digits: int) -> str:
    """A positive number with so many digits at least that tell something."""
    return f"{value:.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def as_printed(value: float) -> str:
    """A published figure, with one decimal at least."""
    text = f"{value:g}"
    return text if "." in text else f"{text}.0"


def probability(value: float) -> str:
    """A p-value."""
    return "-" if math.isnan(value) else f"<{_LEAST_P}" if value < _LEAST_P else f"{value:.3f}"


def _interval(test: Bootstrap) -> str:
    return "-" if math.isnan(test.low) else f"{test.low:+.2f} to {test.high:+.2f}"


def _z(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"
