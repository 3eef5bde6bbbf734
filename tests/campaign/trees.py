"""Tiny corpora in the layouts of the readers, each with rows that are known to be good."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from tests.campaign.fixtures import RATE, sound

SENTENCES = ("hello world", "good morning", "we are here", "a red house", "one more day")
_RELEASE = "cv-corpus-20.0-2024-12-06"
_VP_SESSION = "20190101-0900-PLENARY-x"


@dataclass(frozen=True)
class Tree:
    """A corpus on disk.

    Args:
        name: of the reader, and of the layout where there are two.
        make: writes it below a folder, of `SENTENCES`.
        reader: module of `espnet_mlma.data.corpora`.
        lang, split: what of it to read.
        table: the file of transcripts that is damaged, below the folder.
        sounds: patterns of the sound files, likewise.
        separator: between the fields of a row.
        field: which of them is the text.
        header: whether the table's first line names columns.
    """

    name: str
    make: Callable[[Path], object]
    reader: str
    lang: str
    split: str
    table: str
    sounds: str
    separator: str
    field: int
    header: bool = False

    def read(self, root: Path) -> Iterator:
        """The utterances, by the product's reader."""
        from importlib import import_module

        reader = import_module(f"espnet_mlma.data.corpora.{self.reader}")
        return reader.prepare(root, self.lang, self.split)


def _clip(path: Path, number: int, seconds: float = 1.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, sound(seconds, seed=number), RATE, **options)


def _write(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{row}\n" for row in rows)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        file.write(text)


def _commonvoice(root: Path) -> None:
    folder = root / _RELEASE / "en"
    rows = ["client_id\tpath\tsentence_id\tsentence\tup_votes"]
    for number, text in enumerate(SENTENCES):
        name = f"common_voice_en_{number}.mp3"
        _clip(folder / "clips" / name, number)
        rows.append(f"speaker{number % 2}\t{name}\ts{number}\t{text}\t2")
    _write(folder / "test.tsv", rows)


def _mls(root: Path, edition: str = "mls_english", suffix: str = "flac") -> None:
    folder = root / edition / "test"
    rows = []
    for number, text in enumerate(SENTENCES):
        reader, book = 10 + number % 2, 20
        name = f"{reader}_{book}_{number:06d}"
        _clip(folder / "audio" / str(reader) / str(book) / f"{name}.{suffix}", number)
        rows.append(f"{name}\t{text}")
    _write(folder / "transcripts.txt", rows)


def _mls_opus(root: Path) -> None:
    _mls(root, "mls_english_opus", "opus")


def _voxpopuli(root: Path) -> None:
    _clip(root / f"raw_audios/original/2019/{_VP_SESSION}_original.ogg", 0, 12.0)
    rows = ["session_id|id_|original_text|normed_text|speaker_id|split|gender|vad"]
    for number, text in enumerate(SENTENCES):
        start = 2.0 * number
        spans = f"[[{start}, {start + 0.7}], [{start + 0.9}, {start + 1.6}]]"
        rows.append(f"{_VP_SESSION}|{number}|{text}|{text}|{5 + number % 2}|test|male|{spans}")
    _write(root / "transcribed_data/en/asr_en.tsv.gz", rows)


def _voxpopuli_cut(root: Path) -> None:
    folder = root / "transcribed_data/en"
    rows = ["id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender"]
    for number, text in enumerate(SENTENCES):
        name = f"{_VP_SESSION}-{number}"
        _clip(folder / "2019" / f"{name}.ogg", number)
        rows.append(f"{name}\t{text}\t{text}\t{5 + number % 2}\ttest\tmale")
    _write(folder / "asr_test.tsv", rows)


def _fleurs(root: Path) -> None:
    folder = root / "data/en_us"
    (folder / "audio").mkdir(parents=True)
    rows = []
    with tarfile.open(folder / "audio/test.tar.gz", "w:gz") as archive:
        for number, text in enumerate(SENTENCES):
            content = io.BytesIO()
            soundfile.write(content, sound(1.5, seed=number), RATE, format="WAV")
            entry = tarfile.TarInfo(f"test/clip{number}.wav")
            entry.size = len(content.getvalue())
            archive.addfile(entry, io.BytesIO(content.getvalue()))
            rows.append(f"{number}\tclip{number}.wav\t{text}\t{text}\tx\t24000\tMALE")
    _write(folder / "test.tsv", rows)


def _librispeech(root: Path) -> None:
    folder = root / "test-clean/61/70968"
    rows = []
    for number, text in enumerate(SENTENCES):
        name = f"61-70968-{number:04d}"
        _clip(folder / f"{name}.flac", number)
        rows.append(f"{name} {text.upper()}")
    _write(folder / "61-70968.trans.txt", rows)


def _espeak(tag: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        folder = root / "en/test"
        rows = ["id\tspeaker\ttext"]
        for number, text in enumerate(SENTENCES):
            speaker = f"{tag}_en_m{number % 2}"
            _clip(folder / "audio" / f"{speaker}-test{number:05d}.flac", number)
            rows.append(f"{speaker}-test{number:05d}\t{speaker}\t{text}")
        _write(folder / "transcripts.tsv", rows)

    return make


_ESPEAK = {"table": "en/test/transcripts.tsv", "sounds": "en/test/audio/*.flac"}
TREES = (
    Tree(
        "Common Voice",
        _commonvoice,
        "commonvoice",
        "en",
        "test",
        f"{_RELEASE}/en/test.tsv",
        f"{_RELEASE}/en/clips/*.mp3",
        "\t",
        3,
        True,
    ),
    Tree(
        "MLS",
        _mls,
        "mls",
        "en",
        "test",
        "mls_english/test/transcripts.txt",
        "mls_english/test/audio/*/*/*.flac",
        "\t",
        1,
    ),
    Tree(
        "MLS, Opus",
        _mls_opus,
        "mls",
        "en",
        "test",
        "mls_english_opus/test/transcripts.txt",
        "mls_english_opus/test/audio/*/*/*.opus",
        "\t",
        1,
    ),
    Tree(
        "VoxPopuli, sessions",
        _voxpopuli,
        "voxpopuli",
        "en",
        "test",
        "transcribed_data/en/asr_en.tsv.gz",
        "raw_audios/original/*/*.ogg",
        "|",
        3,
        True,
    ),
    Tree(
        "VoxPopuli, cut",
        _voxpopuli_cut,
        "voxpopuli",
        "en",
        "test",
        "transcribed_data/en/asr_test.tsv",
        "transcribed_data/en/2019/*.ogg",
        "\t",
        2,
        True,
    ),
    Tree(
        "FLEURS",
        _fleurs,
        "fleurs",
        "en",
        "test",
        "data/en_us/test.tsv",
        "data/en_us/audio/test.tar.gz",
        "\t",
        2,
    ),
    Tree(
        "LibriSpeech",
        _librispeech,
        "librispeech",
        "en",
        "test-clean",
        "test-clean/61/70968/61-70968.trans.txt",
        "test-clean/*/*/*.flac",
        " ",
        1,
    ),
    Tree(
        "mini",
        _espeak("mini"),
        "mini",
        "en",
        "test",
        separator="\t",
        field=2,
        header=True,
        **_ESPEAK,
    ),
    Tree(
        "synthetic",
        _espeak("syn"),
        "synthetic",
        "en",
        "test",
        separator="\t",
        field=2,
        header=True,
        **_ESPEAK,
    ),
)
