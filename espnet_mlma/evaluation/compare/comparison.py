"""Compare systems: error counts by language and corpus, and significance tests of each pair."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from espnet_mlma.data.corpora.fleurs import TAG as FLEURS
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare.published import ALL, Figure, Published
from espnet_mlma.evaluation.compare.statistics import (
    Bootstrap,
    Mapsswe,
    bootstrap,
    mapsswe,
    slots,
)
from espnet_mlma.evaluation.compare.systems import System
from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.evaluation.score.utterances import ScoredUtterance
from espnet_mlma.text import order_languages

SCHEMA = "espnet-mlma/comparison/1"


@dataclass(frozen=True)
class CorpusScore:
    """Errors of a system in a language and corpus; `all` for sums."""

    system: str
    normaliser: str
    lang: str
    corpus: str
    sentences: int
    missing: int
    words: Errors
    chars: Errors


@dataclass(frozen=True)
class SystemPair:
    """Two systems compared on the utterances that both decoded.

    Attributes:
        first, second: names.
        sentences, speakers: counts.
        first_wer, second_wer: in per cent.
        wer, cer: first's rate minus second's.
        mapsswe: on words.
        caveats: keys.
    """

    first: str
    second: str
    normaliser: str
    lang: str
    corpus: str
    sentences: int
    speakers: int
    first_wer: float
    second_wer: float
    wer: Bootstrap
    cer: Bootstrap
    mapsswe: Mapsswe
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Systems decoded here beside published figures.

    Attributes:
        systems: decoded here.
        normalisers: names, in the order of the tables.
        published: contents of `published.yaml`.
        figures: the quoted figures.
        scores: by system, normaliser, language and corpus.
        pairs: of systems decoded here.
        apart: remarks on coverage: utterances that only one of two systems decoded, and test sets
            that are summed up in one corpus.
    """

    systems: tuple[System, ...]
    normalisers: tuple[str, ...]
    published: Published
    figures: tuple[Figure, ...]
    scores: tuple[CorpusScore, ...]
    pairs: tuple[SystemPair, ...]
    apart: tuple[str, ...]


def compare(
    systems: Sequence[System],
    normalisers: Sequence[str],
    published: Published,
    figures: Sequence[Figure],
) -> Comparison:
    """Sum up the errors of systems, test each pair, and select the figures to quote.

    Args:
        systems: decoded here; empty: quote all figures.
        normalisers: names; the systems were scored with each.
        published: has sources and caveats of the figures.
        figures: candidates for quoting; see `comparable_figures`.

    Raises:
        MlmaError: two systems have different references for an utterance.
    """
    scores = [
        score
        for system in systems
        for normaliser in normalisers
        for score in system_scores(system, normaliser)
    ]
    pairs = [
        pair
        for first, second in combinations(systems, 2)
        for normaliser in normalisers
        for pair in system_pairs(first, second, normaliser)
    ]
    if systems:
        figures = comparable_figures(figures, {(score.lang, score.corpus) for score in scores})
    return Comparison(
        *(tuple(systems), tuple(normalisers), published),
        *(tuple(figures), tuple(scores), tuple(pairs)),
        apart=tuple(
            sentence
            for first, second in combinations(systems, 2)
            if (sentence := coverage_remark(first, second))
        )
        + tuple(sentence for system in systems for sentence in merged_sets(system)),
    )


def merged_sets(system: System) -> Iterator[str]:
    """Yield a remark for each language and corpus of which several test sets were decoded."""
    sets: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for (set_, _), utterance in next(iter(system.utterances.values())).items():
        sets[utterance.lang, utterance.corpus][set_] = None
    for (lang, corpus), names in sorted(sets.items()):
        if len(names) > 1:
            yield (
                f"{system.name}: {lang} {corpus} is the sum of {' and '.join(names)}; "
                "select sets with --sets."
            )


def coverage_remark(first: System, second: System) -> str:
    """Name the utterances that only one of two systems decoded; empty if there are none."""
    ours, theirs = (set(next(iter(s.utterances.values()))) for s in (first, second))
    if not ours & theirs:
        return f"{first.name} and {second.name} share no utterance, so they are not tested."
    parts = []
    for system, only, other in ((first, ours - theirs, theirs), (second, theirs - ours, ours)):
        lacking = {set_ for set_, _ in only} - {set_ for set_, _ in other}
        rest = sum(set_ not in lacking for set_, _ in only)
        what = sorted(lacking) + [f"{rest} utterances of other sets"] * bool(rest)
        if what:
            parts.append(f"only {system.name} decoded {', '.join(what)}")
    counts = "; tests use the shared utterances, counts and sums use all."
    return "; ".join(parts) + counts if parts else ""


def comparable_figures(figures: Sequence[Figure], decoded: Set[tuple[str, str]]) -> list[Figure]:
    """Select WERs on decoded corpora, and all other figures of the systems that have one.

    Args:
        figures: candidates.
        decoded: languages and corpora; `ls` matches its parts, such as `ls-clean`.
    """
    wholes = {(lang, corpus.partition("-")[0]) for lang, corpus in decoded}
    alike = [
        figure
        for figure in figures
        if (figure.lang, figure.corpus) in decoded | wholes
        or (figure.lang, figure.corpus.partition("-")[0]) in decoded
    ]
    systems = {figure.system for figure in alike if figure.metric == "wer"}
    return [f for f in figures if f in alike or (f.metric != "wer" and f.system in systems)]


def scopes(utterances: Sequence[ScoredUtterance]) -> Iterator[tuple[str, str, list[int]]]:
    """Yield language, corpus and indices of utterances: each corpus, each language, and all.

    Sums over a single corpus or a single language are skipped.
    """
    indices: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, utterance in enumerate(utterances):
        indices[utterance.lang][utterance.corpus].append(index)
    for lang in order_languages(indices):
        corpora = indices[lang]
        for corpus, found in sorted(corpora.items()):
            yield lang, corpus, found
        if len(corpora) > 1:
            yield lang, ALL, [index for found in corpora.values() for index in found]
    if len(indices) > 1:
        yield ALL, ALL, list(range(len(utterances)))


def system_scores(system: System, normaliser: str) -> Iterator[CorpusScore]:
    """Sum up the errors of a system by language and corpus."""
    utterances = list(system.utterances[normaliser].values())
    for lang, corpus, indices in scopes(utterances):
        chosen = [utterances[index] for index in indices]
        yield CorpusScore(
            *(system.name, normaliser, lang, corpus, len(chosen)),
            missing=sum(utterance.missing for utterance in chosen),
            words=total_errors(utterance.word_errors for utterance in chosen),
            chars=total_errors(utterance.char_errors for utterance in chosen),
        )


def system_pairs(first: System, second: System, normaliser: str) -> Iterator[SystemPair]:
    """Test two systems on the utterances that both decoded, by language and corpus.

    Raises:
        MlmaError: an utterance has two references.
    """
    ours, theirs = first.utterances[normaliser], second.utterances[normaliser]
    shared = [key for key in ours if key in theirs]
    for key in shared:
        if ours[key].reference != theirs[key].reference:
            raise MlmaError(
                f"{key[0]}/{key[1]}: {first.name} and {second.name} have different references; "
                "decode the same sets, or give the folder of the references with --dump"
            )
    one, other = [ours[key] for key in shared], [theirs[key] for key in shared]
    word_slots = [(slots(u.words), slots(v.words)) for u, v in zip(one, other, strict=True)]
    for lang, corpus, indices in scopes(one):
        a, b = [one[index] for index in indices], [other[index] for index in indices]
        if any(utterance.reference for utterance in a):
            speakers = [utterance.speaker for utterance in a]
            words = [u.word_errors for u in a], [v.word_errors for v in b]
            chars = [u.char_errors for u in a], [v.char_errors for v in b]
            yield SystemPair(
                *(first.name, second.name, normaliser, lang, corpus, len(indices)),
                speakers=len(set(speakers)),
                first_wer=total_errors(words[0]).rate,
                second_wer=total_errors(words[1]).rate,
                wer=_resampled(*words, speakers),
                cer=_resampled(*chars, speakers),
                mapsswe=mapsswe(word_slots[index] for index in indices),
                # The reader of FLEURS makes each clip a speaker.
                caveats=("clips-as-speakers",) if any(u.corpus == FLEURS for u in a) else (),
            )


def _resampled(
    first: Sequence[Errors], second: Sequence[Errors], speakers: Sequence[str]
) -> Bootstrap:
    reference = [errors.reference for errors in first]
    return bootstrap([e.total for e in first], [e.total for e in second], reference, speakers)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return all figures as plain values for JSON; NaN and Inf become None."""
    published = comparison.published
    quoted = {figure.system: published.systems[figure.system] for figure in comparison.figures}
    used = {figure.source for figure in comparison.figures}
    used |= {system.source for system in quoted.values() if system.source}
    contents = {
        "schema": SCHEMA,
        "systems": [
            {
                "name": system.name,
                "folder": str(system.folder),
                "parameters": system.parameters,
                "training_hours": system.training_hours,
                "measured": asdict(system.measured) if system.measured else None,
            }
            for system in comparison.systems
        ],
        "scores": [
            asdict(score)
            | {"wer": score.words.rate, "cer": score.chars.rate}
            | {"caveats": caveats_of(comparison, score)}
            for score in comparison.scores
        ],
        "pairs": [asdict(pair) for pair in comparison.pairs],
        "apart": list(comparison.apart),
        "quoted_systems": [asdict(system) for system in quoted.values()],
        "quoted": [asdict(figure) for figure in comparison.figures],
        "caveats": dict(published.caveats),
        "sources": {key: text for key, text in published.sources.items() if key in used},
    }
    return _finite(contents)


def caveats_of(comparison: Comparison, score: CorpusScore) -> tuple[str, ...]:
    """Return the caveat keys of a figure; a sum has those of all its parts."""
    [system] = [of for of in comparison.systems if of.name == score.system]
    parts = {
        (part.lang, part.corpus): None
        for part in comparison.scores
        if part.system == score.system
        and part.corpus != ALL
        and score.lang in (part.lang, ALL)
        and score.corpus in (part.corpus, ALL)
    }
    return tuple(dict.fromkeys(key for place in parts for key in system.caveats_on(*place)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.rstrip("_"): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
