"""Read mixtures: the corpora, languages and splits of a training, validation and test set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from espnet_mlma.data.corpora import own
from espnet_mlma.data.utterance import Drop, Utterance
from espnet_mlma.data.where import Where
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
    "eurospeech": "eurospeech",
    "spontaneous": "spontaneous",
    "mini": "mini",
    "mini_en": "mini_en",
    "synthetic": "synthetic",
    "granary": "granary",
    "mosel": "mosel",
    "youtube_commons": "youtube_commons",
    "pseudo": "pseudo",
}
# Keys of a line that is a mapping.
_KEYS = ("corpus", "languages", "splits", "where")


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

    A synthetic corpus also has `generate(root, *, nj)`. A corpus whose rows can be filtered has
    `FIELDS`, their names and types, and `prepare` takes `where`.
    """
    return import_module(f"espnet_mlma.data.corpora.{corpus if corpus in CORPORA else 'own'}")


@dataclass(frozen=True)
class CorpusSplit:
    """One split of one corpus in one language.

    Attributes:
        corpus: in `CORPORA`, or one's own.
        lang: language code.
        split: name of the split, or of the source of labels.
        where: conditions on the rows; see `where.py`.
    """

    corpus: str
    lang: str
    split: str
    where: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def tag(self) -> str:
        """Tag of the corpus in ids, such as `cv`; the name of a corpus of one's own."""
        return reader_of(self.corpus).TAG if self.corpus in CORPORA else self.corpus

    @property
    def test_set(self) -> str:
        """Name of its test set; LibriSpeech has two, "clean" and "other"."""
        other = "other" if self.split.endswith("-other") else ""
        return f"test_{self.tag}{other}_{self.lang}"

    def utterances(self, roots: Mapping[str, Path]) -> Iterator[Utterance | Drop]:
        """Read the split; `roots` has the folder of each corpus."""
        root = roots[self.corpus]
        if self.corpus not in CORPORA:
            return own.prepare(root, self.lang, self.split, self.corpus)
        options = {"where": self.where} if self.where else {}
        return reader_of(self.corpus).prepare(root, self.lang, self.split, **options)


@dataclass(frozen=True)
class Mixture:
    """A training set with its validation and test data.

    Attributes:
        name: in the mixtures file.
        train, valid, test: what the sets are made of.
        missing: share of the labels' audio that may be missing, 0 to 1; None: the default.
    """

    name: str
    train: tuple[CorpusSplit, ...]
    valid: tuple[CorpusSplit, ...]
    test: tuple[CorpusSplit, ...]
    missing: float | None = None

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
            `<corpus> <language,...> <split> ...`, or of mappings with `corpus`, `languages`,
            `splits` and `where`; and `missing`, the share of audio that may be missing.
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
    return Mixture(name, **roles, missing=_missing(mixtures[name], f"{path}: {name}"))


def _missing(mixture: Mapping[str, Any], place: str) -> float | None:
    share = mixture.get("missing")
    if share is None:
        return None
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise MlmaError(f"{place}: missing: {share} is not a share from 0 to 1")
    return float(share)


def _splits(
    lines: Iterable[object], place: str, roots: Mapping[str, Path]
) -> Iterator[CorpusSplit]:
    for line in lines:
        if isinstance(line, dict) and "corpus" in line:
            yield from _mapped(line, place, roots)
            continue
        corpus, _, rest = str(line).partition(" ")
        langs, *splits = rest.split() or [""]
        if not splits or not (corpus in CORPORA or corpus in roots):
            raise MlmaError(f"{place}: '{line}' is not <corpus> <language,...> <split> ...")
        known = LANGUAGES if corpus in CORPORA else own.languages_of(roots[corpus], corpus)
        for lang in langs.split(","):
            if lang not in known:
                raise MlmaError(f"{place}: '{line}': unknown language '{lang}'")
            yield from (CorpusSplit(corpus, lang, split) for split in splits)


def _mapped(
    line: Mapping[object, Any], place: str, roots: Mapping[str, Path]
) -> Iterator[CorpusSplit]:
    """Read a line that is a mapping: `corpus`, `languages`, `splits` and `where`."""
    unknown = next((key for key in line if key not in _KEYS), None)
    if unknown is not None:
        raise MlmaError(f"{place}: unknown key '{unknown}' in {line}; known: {' '.join(_KEYS)}")
    corpus, langs, splits = (
        line["corpus"],
        _names(line.get("languages")),
        _names(line.get("splits")),
    )
    if corpus not in CORPORA or not langs or not splits:
        raise MlmaError(f"{place}: {line} needs a known 'corpus', and lists 'languages', 'splits'")
    where = line.get("where", {})
    fields = getattr(reader_of(corpus), "FIELDS", {})
    Where.checked(where, fields, f"{place}: {corpus}")
    plain = f"{corpus} {','.join(langs)} {' '.join(splits)}"
    for split in _splits([plain], place, roots):
        yield CorpusSplit(split.corpus, split.lang, split.split, where)


def _names(value: object) -> list[str]:
    """Return a list of names; an empty one if the value is anything else."""
    names = value if isinstance(value, list) else []
    is_names = all(isinstance(one, str) and one and " " not in one for one in names)
    return names if is_names else []
