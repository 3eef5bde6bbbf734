"""Systems decoded here: folders of stage 12, scored by utterance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from espnet_mlma.decode import fingerprint
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare.measured import FILE, Measured
from espnet_mlma.evaluation.compare.normalisers import find_normaliser
from espnet_mlma.evaluation.compare.published import Published, QuotedSystem, caveats_on
from espnet_mlma.evaluation.compare.training import (
    TrainingData,
    read_training_data,
    training_caveats,
)
from espnet_mlma.evaluation.score.decoded import decoded_sets, find_dump
from espnet_mlma.evaluation.score.utterances import ScoredUtterance, score_set

# The two test sets of LibriSpeech, as `data.mixtures` names them.
_LIBRISPEECH = {"test_ls_en": "ls-clean", "test_lsother_en": "ls-other"}


@dataclass(frozen=True)
class System:
    """A system decoded here.

    Attributes:
        name: given by the user.
        folder: written by decoding.
        utterances: by normaliser, then by test set and id.
        decoding: contents of `decoding.yaml`, the same for all sets as far as compared; empty:
            another program decoded.
        measured: time and memory of decoding; None: not measured.
        training: training data of its model.
        published: the published system with the same model; None: there is none.
        caveats: keys of caveats by corpus (`cv`), language and corpus (`en/cv`) or `all`.
    """

    name: str
    folder: Path
    utterances: Mapping[str, Mapping[tuple[str, str], ScoredUtterance]]
    decoding: Mapping[str, Any]
    measured: Measured | None
    training: TrainingData
    published: QuotedSystem | None
    caveats: Mapping[str, tuple[str, ...]]

    @property
    def parameters(self) -> int | None:
        """Number of parameters; None: unknown here."""
        return self.decoding.get("parameters")

    @property
    def training_hours(self) -> float | None:
        """Hours of training audio, as given when measuring, else of the tables; None: unknown."""
        given = self.measured.training_hours if self.measured else None
        return given or self.training.hours

    def caveats_on(self, lang: str, corpus: str) -> tuple[str, ...]:
        """Return the caveat keys of a figure of this system."""
        return caveats_on(self.caveats, lang, corpus)


def load_system(
    name: str,
    folder: Path,
    dump: Path | None,
    normalisers: Sequence[str],
    published: Published,
    chosen: Sequence[str] = (),
) -> System:
    """Read and score a decoding folder.

    Args:
        name: given by the user; the key of a published system adds its caveats and size.
        folder: `exp/<experiment>/<decoding>`, with a folder for each test set.
        dump: references, `dump/raw`; None: that of the recipe that contains the folder.
        normalisers: keys of `normalisers.NAMES`.
        published: systems of others.
        chosen: names of test sets; empty: all decoded ones.

    Raises:
        MlmaError: a folder or file is missing, or references and hypotheses do not match.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise MlmaError(
            f"{folder}: {what}; give one that stage 12 wrote, or decode with a model "
            "first, see mlma recipe measure --help"
        )
    references = dump or find_dump(folder)
    sets = decoded_sets(folder, references, chosen)
    utterances = {
        normaliser: {
            (name_of_set, utterance.id): utterance
            for name_of_set in sets
            for utterance in _score(references, folder, name_of_set, normaliser)
        }
        for normaliser in normalisers
    }
    scored = utterances[normalisers[0]].values()
    if not scored:
        raise MlmaError(f"{folder}: its sets have no utterance; run stages 3 and 12 again")
    decoding = fingerprint.read(folder / sets[0]) or {}
    measured = read_measured(folder, references)
    same = published_system(name, measured, published)
    training = read_training_data(Path(measured.model) if measured else folder.resolve().parent)
    has_lm = bool(decoding["language_model"]) if "language_model" in decoding else None
    places = {(one.lang, one.corpus) for one in scored}
    caveats = dict(same.caveats) if same else {}
    caveats = caveats or training_caveats(training, places, has_lm)
    for place in {f"{one.lang}/{one.corpus}" for one in scored if one.missing}:
        caveats[place] = (*caveats.get(place, ()), "missing")
    return System(name, folder, utterances, decoding, measured, training, same, caveats)


def _score(dump: Path, folder: Path, name: str, normaliser: str) -> list[ScoredUtterance]:
    """Score a set; the parts of LibriSpeech become corpora of their own."""
    scored = score_set(dump / name, folder / name, find_normaliser(normaliser))
    corpus = _LIBRISPEECH.get(name)
    return [replace(utterance, corpus=corpus or utterance.corpus) for utterance in scored]


def read_measured(folder: Path, dump: Path) -> Measured | None:
    """Read `measured.json` of a decoding; None: it has none.

    Args:
        folder: the decoding.
        dump: references.

    Raises:
        MlmaError: the file has other contents, or other sets than the decoding.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        measured = Measured(**{field.name: contents[field.name] for field in fields(Measured)})
    except (ValueError, TypeError, KeyError) as error:
        raise MlmaError(f"{path}: not written by measuring ({error}); measure again") from None
    other = set(decoded_sets(folder, dump)) ^ set(measured.sets)
    if other:
        raise MlmaError(
            f"{path}: has sets {' '.join(measured.sets)}, but the folder differs in {min(other)}; "
            "measure again, into an empty folder"
        )
    return measured


def published_system(
    name: str, measured: Measured | None, published: Published
) -> QuotedSystem | None:
    """Find the published system with the same model as one decoded here; None: there is none.

    Args:
        name: given by the user, perhaps a key of a published system.
        measured: has the name of the model, which may be one of a published system's `models`.
        published: the systems.
    """
    # A hub id may have a revision: user/name@revision.
    model = measured.system.partition("@")[0].rpartition("/")[2] if measured else ""
    known = (s for s in published.systems.values() if name == s.key or model in s.models)
    return next(known, None)
