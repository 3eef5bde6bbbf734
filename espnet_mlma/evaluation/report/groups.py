"""Error rates of groups of utterances, and the worst utterances."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.evaluation.score.utterances import ScoredUtterance
from espnet_mlma.text import order_languages

DURATIONS = (1, 2, 3, 5, 8, 12, 20, 30)  # seconds
CONFIDENCE_GROUPS = 5


@dataclass(frozen=True)
class ErrorGroup:
    """Errors of a group of utterances.

    Attributes:
        name: of the group.
        lang: language; empty if there may be several.
        utterances: their number.
        missing: number without hypothesis.
        seconds: of audio.
        words, chars: errors.
    """

    name: str
    lang: str
    utterances: int
    missing: int
    seconds: float
    words: Errors
    chars: Errors


def group(name: str, utterances: Sequence[ScoredUtterance], lang: str = "") -> ErrorGroup:
    """Sum up the errors of utterances; see `ErrorGroup` for `name` and `lang`."""
    return ErrorGroup(
        name,
        lang,
        len(utterances),
        sum(one.missing for one in utterances),
        sum(one.seconds for one in utterances),
        total_errors(one.word_errors for one in utterances),
        total_errors(one.char_errors for one in utterances),
    )


def by_language(utterances: Iterable[ScoredUtterance]) -> dict[str, list[ScoredUtterance]]:
    """Group utterances by language, known ones first."""
    found = _grouped(utterances, lambda one: one.lang)
    return {lang: found[lang] for lang in order_languages(found)}


def by_corpus(utterances: Iterable[ScoredUtterance]) -> list[ErrorGroup]:
    """Group utterances of one language by corpus and test set; the sum of several comes last.

    The name has the test set if a corpus has several.
    """
    utterances = list(utterances)
    found = _grouped(utterances, lambda one: (one.corpus, one.test_set))
    lang = utterances[0].lang
    sets = Counter(corpus for corpus, _ in found)
    rows = [
        group(corpus if sets[corpus] == 1 else f"{corpus}, {name}", found[corpus, name], lang)
        for corpus, name in sorted(found)
    ]
    return rows if len(rows) == 1 else [*rows, group("all", utterances, lang)]


def by_duration(utterances: Iterable[ScoredUtterance]) -> list[ErrorGroup]:
    """Group utterances at the edges `DURATIONS`; empty groups are skipped."""
    edges = (0, *DURATIONS)
    found = _grouped(utterances, lambda one: max(edge for edge in edges if edge <= one.seconds))
    names = [
        f"{low} to {high} s" if high else f"{low} s and more"
        for low, high in zip_longest(edges, edges[1:])
    ]
    return [group(name, found[low]) for name, low in zip(names, edges, strict=True) if low in found]


def by_confidence(utterances: Iterable[ScoredUtterance]) -> list[ErrorGroup]:
    """Group utterances into fifths by confidence, highest first."""
    known = [one for one in utterances if one.confidence is not None and not one.missing]
    known.sort(key=lambda one: -(one.confidence or 0))
    edges = [len(known) * i // CONFIDENCE_GROUPS for i in range(CONFIDENCE_GROUPS + 1)]
    parts = [known[low:high] for low, high in zip(edges, edges[1:], strict=False) if low < high]
    return [group(f"{part[-1].confidence:.2f} to {part[0].confidence:.2f}", part) for part in parts]


def by_speaker(utterances: Iterable[ScoredUtterance]) -> list[ErrorGroup]:
    """Group utterances by speaker, highest WER first."""
    found = _grouped(utterances, lambda one: (one.lang, one.speaker))
    groups = [group(name, of, lang) for (lang, name), of in found.items()]
    return sorted(groups, key=lambda one: (-error_rate(one.words), -one.words.total, one.name))


def worst(utterances: Sequence[ScoredUtterance], number: int) -> list[ScoredUtterance]:
    """List the utterances with the highest WER, one of each language in turn.

    Args:
        utterances: candidates; those without an error are skipped.
        number: maximum.
    """

    def badness(one: ScoredUtterance) -> tuple[float, int, int, str]:
        errors = one.word_errors
        return -error_rate(errors), -errors.total, -one.char_errors.total, one.id

    wrong = by_language(one for one in utterances if one.word_errors.total)
    turns = zip_longest(*(sorted(of, key=badness) for of in wrong.values()))
    return [one for turn in turns for one in turn if one is not None][:number]


def error_rate(errors: Errors) -> float:
    """Return errors per reference token in per cent; infinite for insertions without reference."""
    return errors.rate if errors.reference else float("inf") if errors.total else 0.0


def _grouped(
    utterances: Iterable[ScoredUtterance], key: Callable[[ScoredUtterance], Any]
) -> dict[Any, list[ScoredUtterance]]:
    found = defaultdict(list)
    for one in utterances:
        found[key(one)].append(one)
    return found
