"""Mixtures: which corpus, language and split make a training, validation and test set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml
from espnet_mlma.text import LANGUAGES

# Reader module -> its tag in ids and set names, and its folder under the database root.
CORPORA = {
    "librispeech": ("ls", "LibriSpeech"),
    "commonvoice": ("cv", "commonvoice"),
    "voxpopuli": ("vp", "voxpopuli"),
    "mls": ("mls", "mls"),
    "fleurs": ("fl", "fleurs"),
    "mini": ("mini", "mini"),
    "mini_en": ("minien", "mini_en"),
    "synthetic": ("syn", "synthetic"),
}
Reader = Callable[[Path, str, str], Iterator[Utterance | Drop]]


@dataclass(frozen=True)
class Source:
    """One split of one corpus in one language."""

    corpus: str
    lang: str
    split: str

    @property
    def test_set(self) -> str:
        """Name of the test set that it is part of; LibriSpeech has two, "clean" and "other"."""
        other = "other" if self.split.endswith("-other") else ""
        return f"test_{CORPORA[self.corpus][0]}{other}_{self.lang}"

    def utterances(self, roots: Mapping[str, Path]) -> Iterator[Utterance | Drop]:
        """Read the split; `roots` has the folder of each corpus."""
        reader: Reader = import_module(f"espnet_mlma.data.corpora.{self.corpus}").prepare
        return reader(roots[self.corpus], self.lang, self.split)


@dataclass(frozen=True)
class Mixture:
    """A training set of a paper, with its validation and test data."""

    name: str
    train: tuple[Source, ...]
    valid: tuple[Source, ...]
    test: tuple[Source, ...]

    @property
    def train_set(self) -> str:
        return f"train_{self.name}"

    @property
    def valid_set(self) -> str:
        return f"dev_{self.name}"

    @property
    def test_sets(self) -> dict[str, list[Source]]:
        """The test sets, one per corpus and language, in the mixture's order."""
        sets: dict[str, list[Source]] = {}
        for source in self.test:
            sets.setdefault(source.test_set, []).append(source)
        return sets

    @property
    def corpora(self) -> list[str]:
        """The reader modules that it needs."""
        used = {source.corpus for source in self.train + self.valid + self.test}
        return [corpus for corpus in CORPORA if corpus in used]


def load(path: Path, name: str) -> Mixture:
    """Read one mixture from `mixtures.yaml`.

    Args:
        path: the file; under each mixture's name lists `train`, `valid` and `test`, of lines
            `<corpus> <language,...> <split> ...`.
        name: the mixture.

    Raises:
        MlmaError: no such file or mixture, or something in it is not understood.
    """
    mixtures = read_yaml(path, "give one as conf/mixtures.yaml")
    if name not in mixtures:
        raise MlmaError(f"{path}: no mixture '{name}'; there are {' '.join(mixtures)}")
    if not isinstance(mixtures[name], dict):
        raise MlmaError(f"{path}: mixture '{name}' is no mapping of train, valid and test")
    roles = {}
    for role in ("train", "valid", "test"):
        lines = mixtures[name].get(role)
        if not lines:
            raise MlmaError(f"{path}: mixture '{name}' has no '{role}'")
        if not isinstance(lines, list):
            raise MlmaError(f"{path}: {name}: {role} is no list")
        roles[role] = tuple(_sources(lines, f"{path}: {name}: {role}"))
    return Mixture(name, **roles)


def _sources(lines: Iterable[object], place: str) -> Iterator[Source]:
    for line in lines:
        corpus, _, rest = str(line).partition(" ")
        langs, *splits = rest.split() or [""]
        if corpus not in CORPORA or not splits:
            raise MlmaError(f"{place}: '{line}' is not <corpus> <language,...> <split> ...")
        for lang in langs.split(","):
            if lang not in LANGUAGES:
                raise MlmaError(f"{place}: '{line}': no language '{lang}'")
            yield from (Source(corpus, lang, split) for split in splits)
