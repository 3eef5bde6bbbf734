"""Published figures with their sources, read from `published.yaml`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml
from espnet_mlma.numbers import is_positive

FILE = Path(__file__).with_name("published.yaml")
# The first is in the tables by language, the others in a table of their own.
METRICS = {
    "wer": "WER (%)",
    "mean_wer": "mean WER (%)",
    "long_form_wer": "WER of long recordings (%)",
    "language_accuracy": "right language (%)",
    "rtfx": "seconds of audio per second",
    "relative_speed": "speed, Whisper large-v3 = 1",
}
SECOND_HAND = "second-hand"  # the caveat that `second_hand: true` stands for
ALL, ANY = "all", "any"  # sum over languages or corpora; corpus does not apply

_SYSTEM = {"name", "parameters", "training_hours", "source", "caveats", "models"}
_FIGURES = {"system", "source", "metric", "second_hand", "caveats", "values"}


@dataclass(frozen=True)
class QuotedSystem:
    """A published system.

    Attributes:
        key: its name in `--published`.
        name: its name in tables.
        parameters, training_hours: None: not published.
        source: key of the source of these two; None without them.
        caveats: keys of caveats by corpus (`cv`), language and corpus (`en/cv`) or `all`.
        models: last parts of the hub ids of its weights.
    """

    key: str
    name: str
    parameters: int | None
    training_hours: float | None
    source: str | None
    caveats: Mapping[str, tuple[str, ...]]
    models: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A published number.

    Attributes:
        system, source: keys.
        metric: key of `METRICS`.
        lang: a language, or `all`.
        corpus: a corpus, or `any` if that does not apply.
        value: in the unit of the metric.
        second_hand: the source quotes it, or was itself read in a quotation.
        caveats: keys, including those of the system.
    """

    system: str
    source: str
    metric: str
    lang: str
    corpus: str
    value: float
    second_hand: bool
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """Contents of `published.yaml`, in the order of the file.

    Attributes:
        caveats, sources: texts by key.
        systems: by key.
        figures: all figures.
    """

    caveats: Mapping[str, str]
    sources: Mapping[str, str]
    systems: Mapping[str, QuotedSystem]
    figures: tuple[Figure, ...]

    def choose(self, names: Collection[str]) -> tuple[Figure, ...]:
        """Return the figures of some systems.

        Args:
            names: keys of systems, or prefixes up to a hyphen, such as `owsm`.

        Raises:
            MlmaError: no system has the name.
        """
        chosen = set()
        for name in names:
            matching = {k for k in self.systems if f"{k}-".startswith((f"{name}-", f"{name}."))}
            if not matching:
                raise MlmaError(
                    f"no published system has the name {name!r}; choose from "
                    f"{', '.join(self.systems)}, or only `all` or `none`"
                )
            chosen |= matching
        return tuple(figure for figure in self.figures if figure.system in chosen)


def caveats_on(caveats: Mapping[str, tuple[str, ...]], lang: str, corpus: str) -> tuple[str, ...]:
    """Return the caveat keys of a figure.

    Args:
        caveats: keys of the system's caveats by corpus, language and corpus, or `all`.
        lang, corpus: of the figure.
    """
    places = (ALL, corpus, f"{lang}/{corpus}")
    return tuple(dict.fromkeys(key for place in places for key in caveats.get(place, ())))


def load_published(path: Path = FILE) -> Published:
    """Read and check published figures.

    Args:
        path: a file with the format described in `published.yaml`.

    Raises:
        MlmaError: the file cannot be read, or an entry is wrong, such as a figure without source.
    """
    contents = read_yaml(path, "correct it")
    if set(contents) != {"caveats", "sources", "systems", "figures"}:
        raise MlmaError(f"{path}: needs exactly the keys caveats, sources, systems, figures")
    caveats, sources = contents["caveats"], contents["sources"]
    if SECOND_HAND not in caveats:
        raise MlmaError(f"{path}: caveats: {SECOND_HAND} is missing; add its text")
    checker = Checker(path, caveats, sources)
    systems = {key: checker.system(key, entry) for key, entry in contents["systems"].items()}
    figures = [
        figure
        for number, entry in enumerate(contents["figures"], 1)
        for figure in checker.figures(number, entry, systems)
    ]
    return Published(caveats, sources, systems, tuple(figures))


@dataclass(frozen=True)
class Checker:
    """Check the entries of a file and turn them into systems and figures."""

    path: Path
    known_caveats: Mapping[str, str]
    known_sources: Mapping[str, str]

    def fail(self, entry: str, what: str) -> MlmaError:
        """Make the error of an entry."""
        return MlmaError(f"{self.path}: {entry}: {what}")

    def system(self, key: str, entry: dict[str, Any]) -> QuotedSystem:
        """Read a system.

        Raises:
            MlmaError: a key is unknown, or numbers have no source.
        """
        where = f"systems: {key}"
        self._check_keys(where, entry, _SYSTEM, required={"name"})
        if {"parameters", "training_hours"} & entry.keys() or "source" in entry:
            self._check_source(where, entry)
        for name in ("parameters", "training_hours"):
            if name in entry:
                self._check_number(where, name, entry[name])
        caveats = {
            corpus: self._caveats(where, keys) for corpus, keys in entry.get("caveats", {}).items()
        }
        return QuotedSystem(
            key,
            entry["name"],
            entry.get("parameters"),
            entry.get("training_hours"),
            entry.get("source"),
            caveats,
            tuple(entry.get("models", ())),
        )

    def figures(
        self, number: int, entry: dict[str, Any], systems: Mapping[str, QuotedSystem]
    ) -> Iterator[Figure]:
        """Yield the figures of an entry.

        Args:
            number: of the entry, from 1.
            entry: contents of the entry.
            systems: of the file.

        Raises:
            MlmaError: a key is unknown, the source is missing, or a value is no number.
        """
        where = f"figures, entry {number} ({entry.get('system', 'no system')})"
        self._check_source(where, entry)
        self._check_keys(where, entry, _FIGURES, required={"system", "metric", "values"})
        if entry["system"] not in systems:
            raise self.fail(where, "not in systems; add it there")
        if entry["metric"] not in METRICS:
            raise self.fail(
                where, f"unknown metric {entry['metric']!r}; use one of {' '.join(METRICS)}"
            )
        second_hand = entry.get("second_hand", False)
        own = self._caveats(where, entry.get("caveats", ()))
        own += (SECOND_HAND,) if second_hand else ()
        for lang, values in entry["values"].items():
            for corpus, value in values.items():
                self._check_number(where, f"{lang} {corpus}", value)
                yield Figure(
                    entry["system"],
                    entry["source"],
                    entry["metric"],
                    lang,
                    corpus,
                    float(value),
                    second_hand,
                    caveats_on(systems[entry["system"]].caveats, lang, corpus) + own,
                )

    def _check_keys(self, where: str, entry: dict[str, Any], known: set[str], required: set[str]):
        unknown = sorted(entry.keys() - known)
        if unknown:
            raise self.fail(where, f"unknown key {unknown[0]!r}; use {' '.join(sorted(known))}")
        missing = sorted(required - entry.keys())
        if missing:
            raise self.fail(where, f"{missing[0]} is missing; add it")

    def _check_source(self, where: str, entry: dict[str, Any]) -> None:
        source = entry.get("source")
        if source is None:
            raise self.fail(where, "numbers without a source; give a key of sources")
        if source not in self.known_sources:
            raise self.fail(where, f"source {source!r} is not in sources; add it there")

    def _check_number(self, where: str, name: str, value: Any) -> None:
        if not is_positive(value):
            raise self.fail(where, f"{name}: {value!r} is not a number above 0")

    def _caveats(self, where: str, keys: Collection[str]) -> tuple[str, ...]:
        unknown = next((key for key in keys if key not in self.known_caveats), None)
        if unknown is not None:
            raise self.fail(where, f"caveat {unknown!r} is not in caveats; add its text there")
        return tuple(keys)
