"""Systems measured here: folders that decoding wrote, scored utterance by utterance."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare import normalisers, own
from espnet_mlma.evaluation.compare.measure import FILE, Measured
from espnet_mlma.evaluation.compare.own import Training, read_training
from espnet_mlma.evaluation.compare.published import Published, QuotedSystem, caveats_on
from espnet_mlma.evaluation.compare.statistics import slots
from espnet_mlma.evaluation.score.align import Errors, align, count_errors, count_pairs
from espnet_mlma.evaluation.score.decoded import decoded_sets, find_dump
from espnet_mlma.evaluation.score.join import characters, join

# The two test sets of LibriSpeech, as `corpora.mixtures` names them.
_LIBRISPEECH = {"test_ls_en": "ls-clean", "test_lsother_en": "ls-other"}
# ESPnet's and our recipe name a decoding folder by configuration and language model.
_LANGUAGE_MODEL = re.compile(r"(^|_)(lm|\d*gram|ngram)(_|$)")


@dataclass(frozen=True)
class Scored:
    """An utterance, by one normaliser.

    Attributes:
        lang, corpus, speaker: of it.
        reference: what was said, normalised.
        words, chars: errors.
        slots: where the words' errors are; see `statistics.slots`.
        missing: there is no hypothesis; all its words count as deleted.
    """

    lang: str
    corpus: str
    speaker: str
    reference: str
    words: Errors
    chars: Errors
    slots: tuple[int, ...]
    missing: bool


@dataclass(frozen=True)
class System:
    """A system measured here.

    Attributes:
        name: as the user calls it.
        folder: what decoding wrote.
        utterances: by normaliser, then by test set and id.
        measured: what decoding took, if that was measured.
        training: what its experiment says of it.
        published: the published system that this one is.
        caveats: keys of caveats by corpus, `cv`, or language and corpus, `en/cv`; `all` are those
            of everything.
    """

    name: str
    folder: Path
    utterances: Mapping[str, Mapping[tuple[str, str], Scored]]
    measured: Measured | None
    training: Training
    published: QuotedSystem | None
    caveats: Mapping[str, tuple[str, ...]]

    @property
    def parameters(self) -> int | None:
        """How many, as measured or else as training logged it; None: not known here."""
        return self.measured.parameters if self.measured else self.training.parameters

    @property
    def training_hours(self) -> float | None:
        """Of audio, as told when measuring or else of the training set; None: not known here."""
        told = self.measured.training_hours if self.measured else None
        return told or self.training.hours

    def caveats_on(self, lang: str, corpus: str) -> tuple[str, ...]:
        """Keys of the caveats that a figure of this system carries."""
        return caveats_on(self.caveats, lang, corpus)


def load(
    name: str,
    folder: Path,
    dump: Path | None,
    by: Sequence[str],
    published: Published,
    chosen: Sequence[str] = (),
) -> System:
    """Score a decoding folder.

    Args:
        name: as the user calls it; a key of a published system gives that one's caveats and size.
        folder: `exp/<experiment>/<decoding>`, with a folder for each test set.
        dump: `dump/raw`, the references; None: that of the recipe the folder is in.
        by: normalisers, of `normalisers.NAMES`.
        published: knows the systems of others.
        chosen: names of test sets; empty: all that are decoded.

    Raises:
        MlmaError: a folder or file is missing, or they do not belong together.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise MlmaError(
            f"{folder}: {what}; give one that stage 12 wrote, or decode with a model "
            "first, see python -m espnet_mlma.evaluation.compare.measure --help"
        )
    references = dump or find_dump(folder)
    sets = decoded_sets(folder, references, chosen)
    utterances: dict[str, dict[tuple[str, str], Scored]] = {
        normaliser: {
            (set_, id_): scored
            for set_ in sets
            for id_, scored in score(
                references / set_, folder / set_ / "text", normaliser, _LIBRISPEECH.get(set_)
            ).items()
        }
        for normaliser in by
    }
    scored = utterances[by[0]].values()
    if not scored:
        raise MlmaError(f"{folder}: its sets hold no utterance; run stages 3 and 12 again")
    measured = read_measured(folder, references)
    known_as = published_system(name, measured, published)
    caveats = dict(known_as.caveats) if known_as else {}
    places = {(one.lang, one.corpus) for one in scored}
    training = read_training(Path(measured.model) if measured else folder.resolve().parent)
    caveats = caveats or own.caveats(training, places, used_lm(folder, measured))
    for place in {f"{one.lang}/{one.corpus}" for one in scored if one.missing}:
        caveats[place] = (*caveats.get(place, ()), "missing")
    return System(name, folder, utterances, measured, training, known_as, caveats)


def score(
    data: Path, hypotheses: Path, normaliser: str, corpus: str | None = None
) -> dict[str, Scored]:
    """The utterances of a test set by id.

    Args:
        data: `dump/raw/<set>`.
        hypotheses: the `text` that decoding wrote.
        normaliser: of `normalisers.NAMES`.
        corpus: in place of that of the utterances.

    Raises:
        MlmaError: a file is missing, or ids do not belong together.
    """
    found = {}
    for utterance in join(data, hypotheses, normalisers.find(normaliser)):
        reference, hypothesis = utterance.reference, utterance.hypothesis
        alignment = align(reference.split(), hypothesis.split())
        found[utterance.id] = Scored(
            utterance.lang,
            corpus or utterance.corpus,
            utterance.speaker,
            reference,
            count_pairs(alignment),
            count_errors(characters(reference), characters(hypothesis)),
            slots(alignment),
            utterance.missing,
        )
    return found


def read_measured(folder: Path, dump: Path) -> Measured | None:
    """What decoding took; None where that was not measured.

    Args:
        folder: of the decoding.
        dump: the references.

    Raises:
        MlmaError: the file holds something else, or is about other sets than are decoded.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        measured = Measured(**{field.name: contents[field.name] for field in fields(Measured)})
    except (ValueError, TypeError, KeyError) as error:
        raise MlmaError(f"{path}: not what measuring writes ({error}); measure again") from None
    other = set(decoded_sets(folder, dump)) ^ set(measured.sets)
    if other:
        raise MlmaError(
            f"{path}: is of {' '.join(measured.sets)}, which {min(other)} does not agree with; "
            "measure again, into an empty folder"
        )
    return measured


def published_system(
    name: str, measured: Measured | None, published: Published
) -> QuotedSystem | None:
    """The published system that one measured here is; None if it is none.

    Args:
        name: the user's; a key of a published system.
        measured: has the model's name, which is one of `models` of a published system.
        published: knows the systems.
    """
    # A hub id may be of a revision: user/name@revision.
    model = measured.system.partition("@")[0].rpartition("/")[2] if measured else ""
    known = (s for s in published.systems.values() if name == s.key or model in s.models)
    return next(known, None)


def used_lm(folder: Path, measured: Measured | None) -> bool | None:
    """Whether a language model had a say in a decoding; None: another program decoded.

    Args:
        folder: of the decoding.
        measured: of it, which is always a best path's; None: stage 12 may have decoded.
    """
    if measured:
        return False
    tag, is_recipe, _ = folder.resolve().name.partition("_asr_model_")
    return bool(_LANGUAGE_MODEL.search(tag)) if is_recipe else None
