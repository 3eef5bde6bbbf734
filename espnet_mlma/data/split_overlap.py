"""Overlap of a test set with the splits of another release, from their manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_mlma import files
from espnet_mlma.data.split_manifest import Manifest, Split
from espnet_mlma.errors import MlmaError

SCHEMA = "espnet-mlma/split-overlap/1"
ROLES = ("train", "dev", "test")
_REMEDY = "make it with mlma data overlap --format json"


@dataclass(frozen=True)
class Overlap:
    """What the test set of one release shares with a role's splits in another.

    Attributes:
        corpus, lang: names.
        other: name of the other release or of the system that uses it.
        my_release, other_release: empty: unknown.
        role: `train`, `dev` or `test`, of the other.
        test_clips, test_speakers: of my test set.
        clips: test clips that are there: the same speaker with the same sentence.
        speakers: test speakers that are there.
        clips_of_speakers: test clips of these speakers.
        clips_of_sentences: test clips whose sentence anybody reads there.
    """

    corpus: str
    lang: str
    other: str
    my_release: str
    other_release: str
    role: str
    test_clips: int
    test_speakers: int
    clips: int
    speakers: int
    clips_of_speakers: int
    clips_of_sentences: int


def overlaps(mine: Manifest, other: Manifest, name: str) -> Iterator[Overlap]:
    """Yield the overlaps of each language that both have, by role.

    Args:
        mine: has test splits.
        other: has any splits.
        name: of the other.

    Raises:
        MlmaError: the corpora differ, mine has no test split, or no language is shared.
    """
    if mine.corpus != other.corpus:
        raise MlmaError(
            f"{name}: its corpus is {other.corpus}, mine is {mine.corpus}; give the same corpus"
        )
    tests = {s.lang: None for s in mine.splits if s.role == "test"}
    if not tests:
        raise MlmaError("my manifest has no test split; make it with --splits test")
    shared = [lang for lang in tests if any(s.lang == lang for s in other.splits)]
    if not shared:
        raise MlmaError(f"{name}: has none of my languages {' '.join(tests)}; give one that has")
    for lang in shared:
        test = _of(mine, lang, "test")
        for role in ROLES:
            if there := _of(other, lang, role):
                yield _overlap(mine.corpus, name, role, test, there)


def _of(manifest: Manifest, lang: str, role: str) -> list[Split]:
    return [s for s in manifest.splits if (s.lang, s.role) == (lang, role)]


def _overlap(
    corpus: str, name: str, role: str, test: Sequence[Split], there: Sequence[Split]
) -> Overlap:
    speakers = _column(test, "speakers")
    heard = _found(speakers, _column(there, "speakers"))
    return Overlap(
        *(corpus, test[0].lang, name, _release(test), _release(there), role),
        test_clips=len(speakers),
        test_speakers=len(np.unique(speakers)),
        clips=int(_found(_column(test, "clips"), _column(there, "clips")).sum()),
        speakers=len(np.unique(speakers[heard])),
        clips_of_speakers=int(heard.sum()),
        clips_of_sentences=int(
            _found(_column(test, "sentences"), _column(there, "sentences")).sum()
        ),
    )


def _column(splits: Sequence[Split], name: str) -> np.ndarray:
    if len(splits) == 1:
        return getattr(splits[0], name)  # sorted already
    return np.sort(np.concatenate([getattr(split, name) for split in splits]))


def _found(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Say for each value whether a sorted array has it."""
    places = np.searchsorted(there, values)
    return there[np.minimum(places, len(there) - 1)] == values


def _release(splits: Sequence[Split]) -> str:
    return " and ".join(dict.fromkeys(split.release for split in splits if split.release))


def as_json(found: Sequence[Overlap]) -> str:
    """Return overlaps as JSON."""
    contents = {"schema": SCHEMA, "overlaps": [asdict(one) for one in found]}
    return json.dumps(contents, ensure_ascii=False, indent=1) + "\n"


def read(path: Path) -> tuple[Overlap, ...]:
    """Read the JSON of overlaps.

    Raises:
        MlmaError: it has other contents.
    """
    text = files.read_text(path, _REMEDY)
    try:
        contents = json.loads(text)
        if contents["schema"] != SCHEMA:
            raise ValueError(f"schema is {ascii(contents['schema'])[:80]}, not {SCHEMA}")
        return tuple(_checked(one) for one in contents["overlaps"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MlmaError(f"{path}: not overlaps of splits ({error}); {_REMEDY}") from None


def _checked(values: dict[str, Any]) -> Overlap:
    one = Overlap(**values)
    texts = (one.corpus, one.lang, one.other, one.my_release, one.other_release, one.role)
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError("a name is not a printable text")
    for part, whole in (
        (one.clips, one.test_clips),
        (one.speakers, one.test_speakers),
        (one.clips_of_speakers, one.test_clips),
        (one.clips_of_sentences, one.test_clips),
    ):
        if type(part) is not int or type(whole) is not int or not 0 <= part <= whole or whole < 1:
            raise ValueError("a count is larger than its whole, or not a whole number")
    return one
