"""Error rates of utterances that have something in common, and the worst of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from espnet_mlma.evaluation.report.data import Spoken
from espnet_mlma.evaluation.score.align import Errors, total_errors
from espnet_mlma.text import LANGUAGES

DURATIONS = (1, 2, 3, 5, 8, 12, 20, 30)  # seconds
CONFIDENCE_GROUPS = 5


@dataclass(frozen=True)
class Group:
    """Some utterances.

    Attributes:
        name: what they have in common.
        lang: their language; empty where there may be several.
        utterances: how many.
        missing: how many of them have no hypothesis.
        seconds: of audio.
        words, chars: the errors.
    """

    name: str
    lang: str
    utterances: int
    missing: int
    seconds: float
    words: Errors
    chars: Errors


def group(name: str, spoken: Sequence[Spoken], lang: str = "") -> Group:
    """Count what is in some utterances; arguments as of `Group`."""
    return Group(
        name,
        lang,
        len(spoken),
        sum(one.utterance.missing for one in spoken),
        sum(one.seconds for one in spoken),
        total_errors(one.word_errors for one in spoken),
        total_errors(one.char_errors for one in spoken),
    )


def by_language(spoken: Iterable[Spoken]) -> dict[str, list[Spoken]]:
    """Utterances of each language, the languages in the order of `LANGUAGES`."""
    found = _sorted_out(spoken, lambda one: one.utterance.lang)
    return {lang: found[lang] for lang in LANGUAGES if lang in found}


def by_corpus(spoken: Iterable[Spoken]) -> list[Group]:
    """A group for each corpus and test set of one language, then the sum of several.

    It is named after the corpus, and after the set too where a corpus has several.
    """
    spoken = list(spoken)
    found = _sorted_out(spoken, lambda one: (one.utterance.corpus, one.test_set))
    lang = spoken[0].utterance.lang
    sets = Counter(corpus for corpus, _ in found)
    rows = [
        group(corpus if sets[corpus] == 1 else f"{corpus}, {name}", found[corpus, name], lang)
        for corpus, name in sorted(found)
    ]
    return rows if len(rows) == 1 else [*rows, group("all", spoken, lang)]


def by_duration(spoken: Iterable[Spoken]) -> list[Group]:
    """Groups with edges at `DURATIONS`, without the empty ones."""
    edges = (0, *DURATIONS)
    found = _sorted_out(spoken, lambda one: max(edge for edge in edges if edge <= one.seconds))
    names = [
        f"{low} to {high} s" if high else f"{low} s and more"
        for low, high in zip_longest(edges, edges[1:])
    ]
    return [group(name, found[low]) for name, low in zip(names, edges, strict=True) if low in found]


def by_confidence(spoken: Iterable[Spoken]) -> list[Group]:
    """As many utterances in each of five groups, those that the decoder was surest of first."""
    known = [one for one in spoken if one.confidence is not None and not one.utterance.missing]
    known.sort(key=lambda one: -one.confidence)
    edges = [len(known) * i // CONFIDENCE_GROUPS for i in range(CONFIDENCE_GROUPS + 1)]
    parts = [known[low:high] for low, high in zip(edges, edges[1:], strict=False) if low < high]
    return [group(f"{part[-1].confidence:.2f} to {part[0].confidence:.2f}", part) for part in parts]


def by_speaker(spoken: Iterable[Spoken]) -> list[Group]:
    """A group for each speaker, the one with most errors per word first."""
    found = _sorted_out(spoken, lambda one: (one.utterance.lang, one.utterance.speaker))
    groups = [group(name, of, lang) for (lang, name), of in found.items()]
    return sorted(groups, key=lambda one: (-error_rate(one.words), -one.words.total, one.name))


def worst(spoken: Sequence[Spoken], number: int) -> list[Spoken]:
    """The utterances with most errors per word, as many of each language as there are.

    Args:
        spoken: to choose from; those without an error are not chosen.
        number: how many at most; languages take turns, so that the weakest does not fill the list.
    """

    def badness(one: Spoken) -> tuple[float, int, int, str]:
        errors = one.word_errors
        return -error_rate(errors), -errors.total, -one.char_errors.total, one.utterance.id

    wrong = by_language(one for one in spoken if one.word_errors.total)
    turns = zip_longest(*(sorted(of, key=badness) for of in wrong.values()))
    return [one for turn in turns for one in turn if one is not None][:number]


def error_rate(errors: Errors) -> float:
    """Errors per cent of the reference's tokens; infinite where words came of nothing said."""
    return errors.rate if errors.reference else float("inf") if errors.total else 0.0


def _sorted_out(spoken: Iterable[Spoken], key: Callable) -> dict:
    found = defaultdict(list)
    for one in spoken:
        found[key(one)].append(one)
    return found
