"""Systems side by side: error counts by language and corpus, and tests between each two."""

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
from espnet_mlma.evaluation.compare.statistics import Bootstrap, Mapsswe, bootstrap, mapsswe
from espnet_mlma.evaluation.compare.systems import Scored, System
from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.text import LANGUAGES

SCHEMA = "espnet-mlma/comparison/1"


@dataclass(frozen=True)
class Score:
    """Errors of a system on the utterances of a language and corpus; `all` are sums."""

    system: str
    normaliser: str
    lang: str
    corpus: str
    sentences: int
    missing: int
    words: Errors
    chars: Errors


@dataclass(frozen=True)
class Pair:
    """Two systems on the utterances that both decoded.

    Attributes:
        first, second: names.
        sentences, speakers: how many.
        wer, cer: the first's rate less the second's.
        first_wer, second_wer: in per cent.
        mapsswe: on words.
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
    """All that is put side by side.

    Attributes:
        systems: measured here.
        normalisers: in the order they are printed.
        published: the file of figures.
        figures: those of it that are quoted.
        scores: by system, normaliser, language and corpus.
        pairs: of systems measured here.
        apart: a sentence for each two systems that did not decode the same utterances, and for
            each system and corpus of which several sets make one figure.
    """

    systems: tuple[System, ...]
    normalisers: tuple[str, ...]
    published: Published
    figures: tuple[Figure, ...]
    scores: tuple[Score, ...]
    pairs: tuple[Pair, ...]
    apart: tuple[str, ...]


def compare(
    systems: Sequence[System],
    normalisers: Sequence[str],
    published: Published,
    figures: Sequence[Figure],
) -> Comparison:
    """Score systems, test each two, and choose what is quoted beside them.

    Args:
        systems: measured here; without any, all figures are quoted.
        normalisers: those that the systems were scored by.
        published: where the figures are from.
        figures: that may be quoted; see `beside`.

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
        figures = beside(figures, {(score.lang, score.corpus) for score in scores})
    return Comparison(
        *(tuple(systems), tuple(normalisers), published),
        *(tuple(figures), tuple(scores), tuple(pairs)),
        apart=tuple(
            sentence
            for first, second in combinations(systems, 2)
            if (sentence := what_is_apart(first, second))
        )
        + tuple(sentence for system in systems for sentence in what_is_together(system)),
    )


def what_is_together(system: System) -> Iterator[str]:
    """A sentence for each language and corpus of which several sets were decoded."""
    sets: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for (set_, _), utterance in next(iter(system.utterances.values())).items():
        sets[utterance.lang, utterance.corpus][set_] = None
    for (lang, corpus), names in sorted(sets.items()):
        if len(names) > 1:
            yield (
                f"{system.name}: {lang} {corpus} is {' and '.join(names)} together; --sets chooses."
            )


def what_is_apart(first: System, second: System) -> str:
    """What only one of two systems decoded, in a sentence; empty if nothing is."""
    ours, theirs = (set(next(iter(s.utterances.values()))) for s in (first, second))
    if not ours & theirs:
        return f"{first.name} and {second.name} share no utterance, so there is no test of the two."
    parts = []
    for system, only, other in ((first, ours - theirs, theirs), (second, theirs - ours, ours)):
        lacking = {set_ for set_, _ in only} - {set_ for set_, _ in other}
        rest = sum(set_ not in lacking for set_, _ in only)
        what = sorted(lacking) + [f"{rest} utterances of other sets"] * bool(rest)
        if what:
            parts.append(f"{system.name} alone decoded {', '.join(what)}")
    counts = "; their counts and sums are of different utterances, the test of the two is not."
    return "; ".join(parts) + counts if parts else ""


def beside(figures: Sequence[Figure], decoded: Set[tuple[str, str]]) -> list[Figure]:
    """WER on what was decoded, and all other figures of the systems that have one.

    Args:
        figures: to choose from.
        decoded: languages and corpora; `ls` and a part of it, such as `ls-clean`, go together.
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


def scopes(utterances: Sequence[Scored]) -> Iterator[tuple[str, str, list[int]]]:
    """Language, corpus and places of the utterances in it: each corpus, each language, and all.

    A sum over one corpus, or one language, is left out.
    """
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, utterance in enumerate(utterances):
        places[utterance.lang][utterance.corpus].append(place)
    for lang in (lang for lang in LANGUAGES if lang in places):
        corpora = places[lang]
        for corpus, found in sorted(corpora.items()):
            yield lang, corpus, found
        if len(corpora) > 1:
            yield lang, ALL, [place for found in corpora.values() for place in found]
    if len(places) > 1:
        yield ALL, ALL, list(range(len(utterances)))


def system_scores(system: System, normaliser: str) -> Iterator[Score]:
    """Counts of one system by language and corpus."""
    utterances = list(system.utterances[normaliser].values())
    for lang, corpus, places in scopes(utterances):
        chosen = [utterances[place] for place in places]
        yield Score(
            *(system.name, normaliser, lang, corpus, len(chosen)),
            missing=sum(utterance.missing for utterance in chosen),
            words=total_errors(utterance.words for utterance in chosen),
            chars=total_errors(utterance.chars for utterance in chosen),
        )


def system_pairs(first: System, second: System, normaliser: str) -> Iterator[Pair]:
    """Tests between two systems, on what both decoded, by language and corpus.

    Raises:
        MlmaError: an utterance has two references.
    """
    ours, theirs = first.utterances[normaliser], second.utterances[normaliser]
    shared = [key for key in ours if key in theirs]
    for key in shared:
        if ours[key].reference != theirs[key].reference:
            raise MlmaError(
                f"{key[0]}/{key[1]}: {first.name} and {second.name} have different references; "
                "decode the same sets, or name the folder of the references with --dump"
            )
    one, other = [ours[key] for key in shared], [theirs[key] for key in shared]
    for lang, corpus, places in scopes(one):
        a, b = [one[place] for place in places], [other[place] for place in places]
        if any(utterance.reference for utterance in a):
            yield Pair(
                *(first.name, second.name, normaliser, lang, corpus, len(places)),
                speakers=len({utterance.speaker for utterance in a}),
                first_wer=total_errors(utterance.words for utterance in a).rate,
                second_wer=total_errors(utterance.words for utterance in b).rate,
                wer=_resampled([u.words for u in a], [u.words for u in b], a),
                cer=_resampled([u.chars for u in a], [u.chars for u in b], a),
                mapsswe=mapsswe((u.slots, v.slots) for u, v in zip(a, b, strict=True)),
                # As its reader makes every clip a speaker of its own.
                caveats=("clips-as-speakers",) if any(u.corpus == FLEURS for u in a) else (),
            )


def _resampled(
    first: Sequence[Errors], second: Sequence[Errors], utterances: Sequence[Scored]
) -> Bootstrap:
    reference = [errors.reference for errors in first]
    speakers = [utterance.speaker for utterance in utterances]
    return bootstrap([e.total for e in first], [e.total for e in second], reference, speakers)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """All figures as plain numbers; what is undefined is null."""
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


def caveats_of(comparison: Comparison, score: Score) -> tuple[str, ...]:
    """Keys of the caveats of a figure; a sum has those of all that is in it."""
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
