"""CPU time and memory of the readers of labels, on generated manifests.

    python benchmarks/label_manifests.py [--rows 1000000] [--json FILE]

The audio is 10,000 empty files, which readers list and do not open. Each reader runs in a process
of its own, with nothing else in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

RECORDINGS = 10_000
READERS = {
    "granary": "voxpopuli",
    "mosel": "voxpopuli",
    "youtube_commons": "train",
    "pseudo": "train",
}
TEXT = "signor presidente la ringrazio per la parola che mi ha dato"


def main() -> None:
    if sys.argv[1:2] == ["--read"]:
        read(*sys.argv[2:])
        return
    from common import arguments, report

    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root, args.rows)
        for reader in READERS:
            command = [sys.executable, __file__, "--read", reader, str(root)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append([reader, *json.loads(done.stdout)])
    header = ["reader", "utterances", "dropped", "CPU seconds", "peak MiB"]
    report(f"Readers of labels, {args.rows} rows", header, found, args)


def read(reader: str, root: str) -> None:
    """Read a manifest; print utterances, drops, CPU seconds and peak memory."""
    from espnet_mlma.data.mixtures import reader_of

    started = time.process_time()
    items = reader_of(reader).prepare(Path(root) / reader, "it", READERS[reader])
    kinds = Counter(hasattr(item, "reason") for item in items)
    seconds = time.process_time() - started
    # Not getrusage: its peak includes the parent's memory before exec.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps([kinds[False], kinds[True], f"{seconds:.1f}", f"{peak:.0f}"]))


def generate(root: Path, rows: int) -> None:
    """Write manifests of each reader, and empty files of audio."""
    import pyarrow
    from pyarrow import parquet

    sessions = [f"20160118-0900-PLENARY-{number}" for number in range(RECORDINGS)]
    for place in ("voxpopuli/raw_audios/it/2016", "youtube_commons", "pseudo/audio"):
        (root / place).mkdir(parents=True)
    for folder in ("granary/it/voxpopuli", "mosel/it", "voxpopuli/unlabelled_data"):
        (root / folder).mkdir(parents=True)
    (root / "youtube_commons/audio/youtube_commons").mkdir(parents=True)
    for session in sessions:
        (root / f"voxpopuli/raw_audios/it/2016/{session}_it.ogg").touch()
        (root / f"youtube_commons/audio/youtube_commons/{session}.ogg").touch()
        (root / f"pseudo/audio/{session}.ogg").touch()
    each = -(-rows // RECORDINGS)
    places = [(sessions[n // each], n % each) for n in range(rows)]
    with open(root / "granary/it/voxpopuli/a.jsonl", "w") as file:
        for session, n in places:
            row = {"utt_id": f"{session}_it_{n}", "text": TEXT, "offset": n * 3.0, "duration": 3.0}
            file.write(json.dumps(row) + "\n")
    with open(root / "pseudo/it.jsonl", "w") as file:
        for session, n in places:
            row = {"id": f"{session}-{n}", "file": f"{session}.ogg", "start": n * 3.0}
            row |= {"end": n * 3.0 + 3, "text": TEXT, "confidence": 0.9}
            file.write(json.dumps(row) + "\n")
    with open(root / "mosel/it/voxpopuli.tsv", "w") as file:
        file.write("id\ttext\toffset\tduration\n")
        file.writelines(f"{session}_it_{n}\t{TEXT}\t{n * 3}\t3\n" for session, n in places)
    ids = [f"{session}_{n}" if n else session for session, n in places]
    table = {"video_id": ids, "text": [TEXT] * rows, "transcription_language": ["it"] * rows}
    parquet.write_table(pyarrow.table(table), root / "youtube_commons/a.parquet")


if __name__ == "__main__":
    main()
