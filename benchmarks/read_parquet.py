"""Parquet files of the hub, a million rows and a gigabyte of audio: CPU time and peak memory.

    python benchmarks/read_parquet.py [--rows 1000000] [--clips 4000] [--json FILE]

Each reader runs in a process of its own, which keeps nothing. The audio of the tables is a few
bytes. The clips of the last row are 256 KiB of noise, in row groups of 105 MB, about the
most that `datasets` writes. A row group is in memory three times while it is read.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import arguments, report
from pyarrow.parquet import ParquetWriter

SENTENCE = "a sentence of the usual length, with a number of its own"
GROUP = 1000  # rows
CLIP_GROUP = 400
CLIP = 2**18  # bytes
# Run without the imports of this script, PyTorch among them.
PRINT = """
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(rows, sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), peak.split()[1])
"""
TABLE = """
import resource, sys
from importlib import import_module
from pathlib import Path
reader = import_module(f"espnet_mlma.data.corpora.{sys.argv[1]}")
rows = sum(1 for _ in reader.prepare(Path(sys.argv[2]), sys.argv[3], "train"))
"""
CLIPS = """
import resource, sys
from pathlib import Path
from espnet_mlma.audio.archives import iter_archive
from espnet_mlma.data.corpora import mls
audio = [utterance.audio for utterance in mls.prepare(Path(sys.argv[2]), sys.argv[3], "train")]
archive = iter_archive(audio[0].path, {one.member for one in audio})
rows = sum(1 for _, clip in archive if clip.read())
"""


def fleurs_row(number: int) -> dict:
    """Make a row of FLEURS."""
    name = f"{number:020d}.wav"
    values = {"id": number // 3, "path": name, "raw_transcription": f"{SENTENCE} {number}"}
    return {**values, "num_samples": 160000, "audio": {"bytes": b"", "path": name}}


def voxpopuli_row(number: int) -> dict:
    """Make a row of VoxPopuli."""
    name = f"20{number // 10000:02d}0112-0900-PLENARY-{number // 100}-en_20090112-17:17:{number}"
    values = {"audio_id": name, "normalized_text": f"{SENTENCE} {number}"}
    return {**values, "speaker_id": str(number % 900), "audio": {"bytes": b"", "path": name}}


def mls_row(number: int, clip: bytes = b"") -> dict:
    """Make a row of MLS."""
    name = f"{number // 2000}_{number // 500}_{number:06d}"
    values = {"id": name, "transcript": f"{SENTENCE} {number}", "audio_duration": 10.0}
    return {**values, "audio": {"bytes": clip, "path": f"{name}.opus"}}


def eurospeech_row(number: int) -> dict:
    """Make a row of EuroSpeech."""
    values = {
        "key": f"session{number // 1000}_{number}",
        "human_transcript": f"{SENTENCE} {number}",
    }
    values |= {"cer": number % 100 / 500, "duration_seconds": 10.0}
    return {
        **values,
        "video_id": f"session{number // 1000}",
        "audio": {"bytes": b"", "path": f"{number}.wav"},
    }


READERS = {
    "fleurs": (fleurs_row, "it", "it_it/train/0000.parquet"),
    "voxpopuli": (voxpopuli_row, "en", "en/train/0000.parquet"),
    "mls": (mls_row, "it", "italian/train-00000-of-00001.parquet"),
    "eurospeech": (eurospeech_row, "it", "italy/train-00000-of-00001.parquet"),
}


def write(path: Path, rows: Iterator[dict], count: int, in_group: int = GROUP) -> None:
    """Write rows in row groups."""
    path.parent.mkdir(parents=True)
    writer = None
    for start in range(0, count, in_group):
        part = [next(rows) for _ in range(min(in_group, count - start))]
        table = pa.Table.from_pylist(part)
        writer = writer or ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def measure(code: str, *args: str) -> list[str]:
    """Run code in a new process; return its rows, CPU seconds and peak memory in MB."""
    command = [sys.executable, "-c", code + PRINT, *args]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    count, seconds, peak = map(float, done.stdout.split())
    return [f"{count:.0f}", f"{seconds:.1f}", f"{peak * 1024 / 1e6:.0f}"]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each table")
    parser.add_argument("--clips", type=int, default=4000, help="of 256 KiB")
    args = parser.parse_args()
    rows = []
    for corpus, (make, lang, name) in READERS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / name, map(make, range(args.rows)), args.rows)
            rows.append([f"table of {corpus}", *measure(TABLE, corpus, folder, lang)])
    noise = np.random.default_rng(0)
    clips = (mls_row(number, noise.bytes(CLIP)) for number in range(args.clips))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / READERS["mls"][2], clips, args.clips, CLIP_GROUP)
        label = f"audio of mls, {args.clips * CLIP / 1e6:.0f} MB"
        rows.append([label, *measure(CLIPS, "mls", folder, "it")])
    report("Readers of Parquet files", ["what", "rows", "CPU s", "peak MB"], rows, args)


if __name__ == "__main__":
    main()
