"""Read mixtures: the corpora, languages and splits of a training, validation and test set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from espnet_mlma.data.corpora import own
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.errors import MlmaError
from espnet_mlma.files import read_yaml
from espnet_mlma.text import LANGUAGES

# Reader module in `corpora/` -> folder of the corpus in --db_root.
CORPORA = {
    "librispeech": "LibriSpeech",
    "commonvoice": "commonvoice",
    "voxpopuli": "voxpopuli",
    "mls": "mls",
    "fleurs": "fleurs",
    "mini": "mini",
    "mini_en": "mini_en",
    "synthetic": "synthetic",
}


def find_roots(db_root: Path | None, named: Iterable[str] = ()) -> dict[str, Path]:
    """Find the folders of all corpora, one's own too.

    Args:
        db_root: their parent; each folder in it with a `corpus.yaml` is a corpus of its name.
        named: `CORPUS=DIR` for corpora elsewhere.

    Raises:
        MlmaError: an assignment is invalid, or names a folder without a corpus.
    """
    roots = {} if db_root is None else {name: db_root / of for name, of in CORPORA.items()}
    for record in [] if db_root is None else sorted(db_root.glob(f"*/{own.RECORD}")):
        if own.NAME.fullmatch(record.parent.name) and record.parent.name not in CORPORA:
            roots[record.parent.name] = record.parent
    for assignment in named:
        corpus, _, path = assignment.partition("=")
        is_own = own.NAME.fullmatch(corpus) and (Path(path) / own.RECORD).is_file()
        if not path or not (corpus in CORPORA or is_own):
            raise MlmaError(
                f"--root {assignment}: not CORPUS=DIR; corpora are {' '.join(CORPORA)}, and "
                f"folders with {own.RECORD}"
            )
        roots[corpus] = Path(path)
    return roots


def reader_of(corpus: str) -> ModuleType:
    """Import the reader of a corpus: a module with `TAG` and `prepare(root, lang, split)`.

    A synthetic corpus also has `generate(root, *, nj)`.
    """
    return import_module(f"espnet_mlma.data.corpora.{corpus if corpus in CORPORA else 'own'}")


@dataclass(frozen=True)
class CorpusSplit:
    """One split of one corpus in one language."""

    corpus: str
    lang: str
    split: str

    @property
    def test_set(self) -> str:
        """Name of its test set; LibriSpeech has two, "clean" and "other"."""
        other = "other" if self.split.endswith("-other") else ""
        tag = reader_of(self.corpus).TAG if self.corpus in CORPORA else self.corpus
        return f"test_{tag}{other}_{self.lang}"

    def utterances(self, roots: Mapping[str, Path]) -> Iterator[Utterance | Drop]:
        """Read the split; `roots` has the folder of each corpus."""
        root = roots[self.corpus]
        if self.corpus not in CORPORA:
            return own.prepare(root, self.lang, self.split, self.corpus)
        return reader_of(self.corpus).prepare(root, self.lang, self.split)


@dataclass(frozen=True)
class Mixture:
    """A training set with its validation and test data."""

    name: str
    train: tuple[CorpusSplit, ...]
    valid: tuple[CorpusSplit, ...]
    test: tuple[CorpusSplit, ...]

    @property
    def train_set(self) -> str:
        """Name of the training set."""
        return f"train_{self.name}"

    @property
    def valid_set(self) -> str:
        """Name of the validation set."""
        return f"dev_{self.name}"

    @property
    def test_sets(self) -> dict[str, list[CorpusSplit]]:
        """The test sets by name, one per corpus and language, in the mixture's order."""
        sets: dict[str, list[CorpusSplit]] = {}
        for split in self.test:
            sets.setdefault(split.test_set, []).append(split)
        return sets

    @property
    def corpora(self) -> list[str]:
        """The corpora that it uses."""
        used = {split.corpus for split in self.train + self.valid + self.test}
        return [corpus for corpus in CORPORA if corpus in used] + sorted(used - CORPORA.keys())


def load(path: Path, name: str, roots: Mapping[str, Path] | None = None) -> Mixture:
    """Read one mixture from a mixtures file, or make that of a corpus of one's own.

    Args:
        path: YAML file: under each mixture's name the lists `train`, `valid` and `test` of lines
            `<corpus> <language,...> <split> ...`.
        name: of the mixture; if the file has none, of one's own corpus.
        roots: folders of corpora, for one's own.

    Raises:
        MlmaError: the file or the mixture does not exist, or a line is invalid.
    """
    mixtures = read_yaml(path, "give one as conf/mixtures.yaml")
    roots = {corpus: root for corpus, root in (roots or {}).items() if corpus not in CORPORA}
    if name not in mixtures and name in roots:
        langs = own.languages_of(roots[name], name)
        whole = {
            split: tuple(CorpusSplit(name, lang, split) for lang in langs) for split in own.SPLITS
        }
        return Mixture(name, whole["train"], whole["dev"], whole["test"])
    if name not in mixtures:
        raise MlmaError(f"{path}: no mixture '{name}'; choose one of {' '.join(mixtures)}")
    if not isinstance(mixtures[name], dict):
        raise MlmaError(f"{path}: mixture '{name}' is not a mapping of train, valid and test")
    roles = {}
    for role in ("train", "valid", "test"):
        lines = mixtures[name].get(role)
        if not lines:
            raise MlmaError(f"{path}: mixture '{name}' has no '{role}'")
        if not isinstance(lines, list):
            raise MlmaError(f"{path}: {name}: {role} is not a list")
        roles[role] = tuple(_splits(lines, f"{path}: {name}: {role}", roots))
    return Mixture(name, **roles)


def _splits(
    lines: Iterable[object], place: str, roots: Mapping[str, Path]
) -> Iterator[CorpusSplit]:
    for line in lines:
        corpus, _, rest = str(line).partition(" ")
        langs, *splits = rest.split() or [""]
        if not splits or not (corpus in CORPORA or corpus in roots):
            raise MlmaError(f"{place}: '{line}' is not <corpus> <language,...> <split> ...")
        known = LANGUAGES if corpus in CORPORA else own.languages_of(roots[corpus], corpus)
        for lang in langs.split(","):
            if lang not in known:
                raise MlmaError(f"{place}: '{line}': unknown language '{lang}'")
            yield from (CorpusSplit(corpus, lang, split) for split in splits)
