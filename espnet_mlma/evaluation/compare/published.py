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
SECOND_HAND = "second-hand"  # caveat of `second_hand: true`
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
    entries = _Entries(path, caveats, sources)
    systems = {key: entries.system(key, entry) for key, entry in contents["systems"].items()}
    numbered = enumerate(contents["figures"], 1)
    figures = (one for number, entry in numbered for one in entries.figures(number, entry, systems))
    return Published(caveats, sources, systems, tuple(figures))


@dataclass(frozen=True)
class _Entries:
    """Check the entries of a file and turn them into systems and figures."""

    path: Path
    caveats: Mapping[str, str]
    sources: Mapping[str, str]

    def system(self, key: str, entry: dict[str, Any]) -> QuotedSystem:
        where = f"systems: {key}"
        self._check_keys(where, entry, _SYSTEM, required={"name"})
        numbers = [name for name in ("parameters", "training_hours") if name in entry]
        if numbers or "source" in entry:
            self._check_source(where, entry)
        for name in numbers:
            self._check_number(where, name, entry[name])
        caveats = {
            place: self._known_caveats(where, keys)
            for place, keys in entry.get("caveats", {}).items()
        }
        known = {name: entry.get(name) for name in ("parameters", "training_hours", "source")}
        models = tuple(entry.get("models", ()))
        return QuotedSystem(key, entry["name"], **known, caveats=caveats, models=models)

    def figures(
        self, number: int, entry: dict[str, Any], systems: Mapping[str, QuotedSystem]
    ) -> Iterator[Figure]:
        where = f"figures, entry {number} ({entry.get('system', 'no system')})"
        self._check_source(where, entry)
        self._check_keys(where, entry, _FIGURES, required={"system", "metric", "values"})
        system, source, metric = (entry[name] for name in ("system", "source", "metric"))
        self._check(system in systems, where, "not in systems; add it there")
        names = " ".join(METRICS)
        self._check(metric in METRICS, where, f"unknown metric {metric!r}; use one of {names}")
        second_hand = entry.get("second_hand", False)
        own = self._known_caveats(where, entry.get("caveats", ()))
        own += (SECOND_HAND,) if second_hand else ()
        for lang, values in entry["values"].items():
            for corpus, value in values.items():
                self._check_number(where, f"{lang} {corpus}", value)
                caveats = caveats_on(systems[system].caveats, lang, corpus) + own
                about = system, source, metric, lang, corpus
                yield Figure(*about, float(value), second_hand, caveats)

    def _check(self, is_right: bool, where: str, problem: str) -> None:
        if not is_right:
            raise MlmaError(f"{self.path}: {where}: {problem}")

    def _check_keys(
        self, where: str, entry: dict[str, Any], known: set[str], required: set[str]
    ) -> None:
        for key in sorted(entry.keys() - known):
            self._check(False, where, f"unknown key {key!r}; use {' '.join(sorted(known))}")
        for key in sorted(required - entry.keys()):
            self._check(False, where, f"{key} is missing; add it")

    def _check_source(self, where: str, entry: dict[str, Any]) -> None:
        source = entry.get("source")
        self._check(source is not None, where, "numbers without a source; give a key of sources")
        known = source in self.sources
        self._check(known, where, f"source {source!r} is not in sources; add it there")

    def _check_number(self, where: str, name: str, value: Any) -> None:
        self._check(is_positive(value), where, f"{name}: {value!r} is not a number above 0")

    def _known_caveats(self, where: str, keys: Collection[str]) -> tuple[str, ...]:
        for key in keys:
            problem = f"caveat {key!r} is not in caveats; add its text there"
            self._check(key in self.caveats, where, problem)
        return tuple(keys)
