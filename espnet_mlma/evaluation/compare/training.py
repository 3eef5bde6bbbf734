"""Training data of a model that was trained here, and the caveats that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.data.corpora.fleurs import TAG as FLEURS
from espnet_mlma.data.tables import find_relative, read, training_tables, without_speed
from espnet_mlma.errors import MlmaError
from espnet_mlma.evaluation.compare.published import ALL
from espnet_mlma.files import read_yaml


@dataclass(frozen=True)
class TrainingData:
    """What a model was trained on.

    Attributes:
        hours: of audio; None: the tables are not here.
        corpora: languages and corpora; empty: the tables are not here.
    """

    hours: float | None = None
    corpora: Set[tuple[str, str]] = frozenset()


def read_training_data(experiment: Path) -> TrainingData:
    """Read the training set of an experiment, and of the experiments it was initialised from.

    Args:
        experiment: such as `exp/asr_*`; nothing is known about other folders.

    Raises:
        MlmaError: a configuration or a table of a training set cannot be read.
    """
    corpora: set[tuple[str, str]] = set()
    lengths: set[Path] = set()
    has_corpora = has_lengths = True
    todo, done = [experiment], set()
    while todo:
        place = todo.pop()
        done.add(place)
        path = place / "config.yaml"
        config = read_yaml(path, "give a folder that training wrote") if path.is_file() else {}
        todo += [start for start in _initialised_from(place, config) if start not in done]
        found = set(_corpora(training_tables(place, config, "utt2lang")))
        tables = training_tables(place, config, "utt2num_samples")
        corpora |= found
        lengths |= {table.resolve() for table in tables}
        has_corpora &= bool(found)
        has_lengths &= bool(tables)
    return TrainingData(
        sum(map(_seconds, lengths)) / 3600 if has_lengths else None,
        corpora if has_corpora else frozenset(),
    )


def _initialised_from(place: Path, config: dict[str, Any]) -> Iterator[Path]:
    """Yield the folders of the checkpoints in `init_param`."""
    for given in config.get("init_param") or ():
        beside = Path(given.partition(":")[0]).with_name("config.yaml")
        yield (find_relative(place, beside) or beside).parent


def _corpora(tables: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield languages and corpora of utterances, from each `utt2lang` and its `utt2category`."""
    for table in tables:
        categories = table.with_name("utt2category")
        if categories.is_file():
            languages = read(table, "stage 1")
            for id_, corpus in read(categories, "stage 1").items():
                yield languages.get(id_, ""), corpus


def _seconds(table: Path) -> float:
    samples = read(table, "stage 3")
    try:
        # a speed-perturbed copy is the same speech
        total = sum(int(n) for id_, n in samples.items() if without_speed(id_) == id_)
    except ValueError as error:
        raise MlmaError(f"{table}: {error}; run stage 3 again") from None
    return total / SAMPLE_RATE


def training_caveats(
    training: TrainingData, decoded: Set[tuple[str, str]], has_lm: bool | None
) -> dict[str, tuple[str, ...]]:
    """Return caveat keys by place (`all` or `en/cv`), from training data and language model.

    Args:
        training: of the model.
        decoded: languages and corpora.
        has_lm: whether decoding used a language model; None: unknown.
    """
    found: dict[str, tuple[str, ...]] = {}
    if has_lm is not None:
        found[ALL] = ("lm" if has_lm else "no-lm",)
    seen = training.corpora
    for lang, corpus in decoded if seen else ():
        is_seen = (lang, corpus.partition("-")[0]) in seen
        if not is_seen or corpus == FLEURS:
            found[f"{lang}/{corpus}"] = ("fleurs-seen" if is_seen else "unseen",)
    return found
