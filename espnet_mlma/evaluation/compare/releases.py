"""Caveats on test sets that differ between releases, such as Common Voice's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from espnet_mlma.data.corpora.commonvoice import TAG as COMMON_VOICE
from espnet_mlma.data.mixtures import CORPORA, reader_of
from espnet_mlma.data.split_overlap import Overlap
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare.published import Figure, Published
from espnet_mlma.evaluation.compare.systems import System

UNKNOWN = "cv-release"


@dataclass(frozen=True)
class WithReleases:
    """What `compare` takes, with the caveats on releases.

    Attributes:
        systems, published, figures: see `compare`.
        in_vain: names in overlaps of no system with a figure on the corpus and language.
    """

    systems: tuple[System, ...]
    published: Published
    figures: tuple[Figure, ...]
    in_vain: tuple[str, ...]


def with_releases(
    systems: Sequence[System],
    published: Published,
    figures: Sequence[Figure],
    found: Sequence[Overlap],
) -> WithReleases:
    """Add overlaps with other releases as caveats, and mark figures of an unknown release.

    Args:
        systems: decoded here; without any there is no test set of ours, so nothing is marked.
        published: gets the texts of the caveats.
        figures: published ones.
        found: overlaps of our test sets with the releases of systems, by the systems' names or
            keys.

    Raises:
        MlmaError: an overlap's corpus is not one of ours.
    """
    notes = _notes(found)
    texts = dict(published.caveats) | {_key(*place): text for place, text in notes.items()}
    used = set()
    marked = []
    for system in systems:
        caveats = dict(system.caveats)
        places = {(u.lang, u.corpus) for of in system.utterances.values() for u in of.values()}
        names = {system.name} | ({system.published.key} if system.published else set())
        for name, lang, corpus in notes:
            if name in names and (lang, corpus) in places:
                place = f"{lang}/{corpus}"
                caveats[place] = (*caveats.get(place, ()), _key(name, lang, corpus))
                used.add(name)
        marked.append(replace(system, caveats=caveats))
    quoted = list(figures)
    if systems:
        for index, figure in enumerate(quoted):
            note = (figure.system, figure.lang, figure.corpus)
            if note in notes:
                used.add(figure.system)
                key = _key(*note)
            elif figure.corpus == COMMON_VOICE:
                key = UNKNOWN
            else:
                continue
            quoted[index] = replace(figure, caveats=(*figure.caveats, key))
    return WithReleases(
        tuple(marked),
        replace(published, caveats=texts),
        tuple(quoted),
        tuple(dict.fromkeys(name for name, _, _ in notes if name not in used)),
    )


def _notes(found: Sequence[Overlap]) -> dict[tuple[str, str, str], str]:
    """Return texts by system, language and corpus tag."""
    groups: dict[tuple[str, str, str], list[Overlap]] = defaultdict(list)
    for one in found:
        if one.corpus not in CORPORA:
            raise MlmaError(
                f"overlap with {one.other}: unknown corpus {ascii(one.corpus)[:80]}; "
                f"corpora are {' '.join(CORPORA)}"
            )
        groups[one.other, one.lang, reader_of(one.corpus).TAG].append(one)
    return {place: _text(group) for place, group in groups.items()}


def _text(group: Sequence[Overlap]) -> str:
    first = group[0]
    shares = ", ".join(
        f"{_percent(one.clips, one.test_clips)} in its {one.role} set" for one in group
    )
    heard = next((one for one in group if one.role == "train"), None)
    speakers = (
        f" Its train set has {_percent(heard.speakers, heard.test_speakers)} of the test speakers, "
        f"who read {_percent(heard.clips_of_speakers, heard.test_clips)} of the test clips."
        if heard
        else ""
    )
    return (
        f"{first.other} uses {_release(first.other_release)}. "
        f"Of the {first.test_clips} {first.lang} test clips of "
        f"{_release(first.my_release)}: {shares}.{speakers}"
    )


def _release(name: str) -> str:
    return f"release {name}" if name else "an unknown release"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _key(name: str, lang: str, corpus: str) -> str:
    return f"overlap-{lang}-{corpus}-{name}"
