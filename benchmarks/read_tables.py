"""The corpus readers on tables of a million rows, without sound: CPU time and peak memory.

    python benchmarks/read_tables.py [--rows 1000000] [--json FILE]

Each reader runs in a process of its own, which reads the whole table and keeps nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from common import arguments, report

from espnet_mlma.data.corpora.own import COLUMNS
from espnet_mlma.data.mixtures import CORPORA

SENTENCE = "a sentence of the usual length, with a number of its own"
SPLITS = {
    "librispeech": ("en", "train-clean-100"),
    "commonvoice": ("en", "train"),
    "voxpopuli": ("en", "train"),
    "mls": ("de", "train"),
    "fleurs": ("de", "train"),
    "mine": ("pl", "train"),  # as `mlma data add` writes it
}
# Runs without the imports of this script, PyTorch among them.
MEASURE = """
import resource, sys
from pathlib import Path
from espnet_mlma.data.mixtures import CorpusSplit
corpus, root, lang, split = sys.argv[1:]
rows = sum(1 for _ in CorpusSplit(corpus, lang, split).utterances({corpus: Path(root)}))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_utime, peak.split()[1])
"""
CHAPTER = 100  # LibriSpeech's utterances with one transcript file
COMMONVOICE = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents "
    "variant locale segment"
)
VOXPOPULI = "session_id|id_|original_text|normed_text|speaker_id|split|vad"


def write_tables(corpus: str, root: Path, rows: int) -> None:
    """Write the tables of one split in the corpus's layout."""
    {
        "librispeech": librispeech,
        "commonvoice": commonvoice,
        "voxpopuli": voxpopuli,
        "mls": mls,
        "fleurs": fleurs,
        "mine": mine,
    }[corpus](root, rows)


def write_lines(path: Path, lines: Iterator[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", 1) if path.suffix == ".gz" else open(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def commonvoice(root: Path, rows: int) -> None:
    def lines() -> Iterator[str]:
        yield COMMONVOICE.replace(" ", "\t")
        for number in range(rows):
            client = hashlib.sha512(str(number // 12).encode()).hexdigest()
            cells = (client, f"common_voice_en_{number:08d}.mp3", f"{number:x}")
            yield "\t".join((*cells, f"{SENTENCE} {number}", "", "2", "0", *[""] * 4, "en", ""))

    folder = root / "cv-corpus-20.0-2024-12-06/en"
    write_lines(folder / "train.tsv", lines())
    lengths = (
        f"common_voice_en_{number:08d}.mp3\t{2000 + number % 5000}" for number in range(rows)
    )
    write_lines(folder / "clip_durations.tsv", chain(["clip\tduration[ms]"], lengths))


def librispeech(root: Path, rows: int) -> None:
    for chapter in range(0, rows, CHAPTER):
        reader = chapter // (CHAPTER * 10)
        name = f"{reader}-{chapter}"
        lines = (f"{name}-{i:04d} {SENTENCE.upper()} {i}" for i in range(min(CHAPTER, rows)))
        path = root / "train-clean-100" / str(reader) / str(chapter) / f"{name}.trans.txt"
        write_lines(path, lines)


def mls(root: Path, rows: int) -> None:
    lines = (f"{i // 2000}_{i // 500}_{i:06d}\t{SENTENCE} {i}" for i in range(rows))
    write_lines(root / "mls_german/train/transcripts.txt", lines)


def voxpopuli(root: Path, rows: int) -> None:
    (root / "raw_audios/original").mkdir(parents=True)

    def lines() -> Iterator[str]:
        yield VOXPOPULI
        for i in range(rows):
            session, text = f"20{i // 10000:02d}0112-0900-PLENARY-{i // 100}", f"{SENTENCE} {i}"
            yield f"{session}|20090112-17:17:{i}|{text}|{text}|{i % 900}|train|[(1.5, {i % 9 + 2})]"

    write_lines(root / "transcribed_data/en/asr_en.tsv.gz", lines())


def fleurs(root: Path, rows: int) -> None:
    folder = root / "data/de_de"
    (folder / "audio/train").mkdir(parents=True)
    row = f"{SENTENCE}\t{SENTENCE}\t{SENTENCE}\t160000\tFEMALE"
    write_lines(folder / "train.tsv", (f"{i // 3}\t{i:020d}.wav\t{row}" for i in range(rows)))


def mine(root: Path, rows: int) -> None:
    def lines() -> Iterator[str]:
        yield "\t".join(COLUMNS)
        for i in range(rows):
            yield f"{i}\t/audio/{i}.flac\t\t\t3.5\t{i // 40}\tzażółć {SENTENCE}"

    write_lines(root / "pl/train.tsv", lines())
    write_lines(root / "pl/alphabet.txt", iter("abcdefghijklmnopqrstuvwxyzćłóż"))


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    rows = []
    for corpus in SPLITS:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / CORPORA.get(corpus, corpus)
            write_tables(corpus, root, args.rows)
            command = [sys.executable, "-c", MEASURE, corpus, str(root), *SPLITS[corpus]]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        count, seconds, peak = map(float, done.stdout.split())
        rows.append([corpus, f"{count:.0f}", f"{seconds:.1f}", f"{peak * 1024 / 1e6:.0f}"])
    report("Readers of tables", ["corpus", "rows", "CPU s", "peak MB"], rows, args)


if __name__ == "__main__":
    main()
