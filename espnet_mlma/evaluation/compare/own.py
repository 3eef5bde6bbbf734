"""What the folder of a model that was trained here says of the model."""

from __future__ import annotations

import re
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

# As ESPnet's trainer writes it, such as 31.63 M.
_PARAMETERS = re.compile(r"Total Number of model parameters: ([\d.,]+) ?([KMBT]?)")
_FACTORS = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Training:
    """What a model is, and what it has heard.

    Attributes:
        parameters: how many, as ESPnet's log rounds it; None: there is no log.
        hours: of audio in the training set; None: that is not here.
        corpora: languages and corpora of the training set; empty where that is not here.
    """

    parameters: int | None = None
    hours: float | None = None
    corpora: Set[tuple[str, str]] = frozenset()


def read_training(experiment: Path) -> Training:
    """Read an experiment's log, and the tables of its training set as far as they are here.

    Where training began with parameters of another experiment, that one's training set counts too.

    Args:
        experiment: as `exp/asr_*`; of another folder nothing is known.

    Raises:
        MlmaError: a configuration, or a table of a training set, cannot be read.
    """
    corpora: set[tuple[str, str]] = set()
    lengths: set[Path] = set()
    is_heard = is_long = True
    todo, done = [experiment], set()
    while todo:
        place = todo.pop()
        done.add(place)
        path = place / "config.yaml"
        config = read_yaml(path, "give a folder that training wrote") if path.is_file() else {}
        todo += [start for start in _starts(place, config) if start not in done]
        found = set(_corpora(training_tables(place, config, "utt2lang")))
        tables = training_tables(place, config, "utt2num_samples")
        corpora |= found
        lengths |= {table.resolve() for table in tables}
        is_heard &= bool(found)
        is_long &= bool(tables)
    return Training(
        logged_parameters(experiment / "train.log"),
        sum(map(_seconds, lengths)) / 3600 if is_long else None,
        corpora if is_heard else frozenset(),
    )


def _starts(place: Path, config: dict[str, Any]) -> Iterator[Path]:
    """The folders of the checkpoints that training began with."""
    for given in config.get("init_param") or ():
        beside = Path(given.partition(":")[0]).with_name("config.yaml")
        yield (find_relative(place, beside) or beside).parent


def _corpora(tables: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Languages and corpora of the utterances in folders, by their `utt2lang`."""
    for table in tables:
        of_corpus = table.with_name("utt2category")
        if of_corpus.is_file():
            languages = read(table, "stage 1")
            for id_, corpus in read(of_corpus, "stage 1").items():
                yield languages.get(id_, ""), corpus


def logged_parameters(log: Path) -> int | None:
    """How many parameters a model has by ESPnet's log; None where that is not there."""
    if not log.is_file():
        return None
    found = _PARAMETERS.search(log.read_text(encoding="utf-8", errors="replace"))
    return round(float(found[1].replace(",", "")) * _FACTORS[found[2]]) if found else None


def _seconds(table: Path) -> float:
    samples = read(table, "stage 3")
    try:
        # a copy at another speed is the same speech
        heard = sum(int(n) for id_, n in samples.items() if without_speed(id_) == id_)
    except ValueError as error:
        raise MlmaError(f"{table}: {error}; run stage 3 again") from None
    return heard / SAMPLE_RATE


def caveats(
    training: Training, decoded: Set[tuple[str, str]], has_lm: bool | None
) -> dict[str, tuple[str, ...]]:
    """Caveats by place, of a model by its training set and how it was decoded.

    Args:
        training: of the model.
        decoded: languages and corpora.
        has_lm: whether a language model had a say; None: not known.
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
