"""The data stages of the recipe on a large set: the corpora's training speech, repeated.

    python benchmarks/data_stages.py --db_root CORPORA --work FOLDER [--entries 100000] [--nj 2]
        [--json FILE]

Every repetition has ids and speakers of its own and shares the sound files, so from the second time
on the files come from the system's cache.
"""

from __future__ import annotations

import dataclasses
import itertools
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, arguments, report

from espnet_mlma.data.filter import LengthLimits, filter_folder
from espnet_mlma.data.format_audio import format_folder
from espnet_mlma.data.mixtures import CORPORA, load
from espnet_mlma.data.tokens import read_transcripts, write_tokens
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.data.writer import write_set

MIXTURE = "real"


def repeated(utterances: list[Utterance], entries: int) -> Iterator[Utterance]:
    """The utterances over and over, each time by other speakers."""
    for number, utterance in enumerate(itertools.islice(itertools.cycle(utterances), entries)):
        speaker = f"{utterance.speaker}r{number // len(utterances):04d}"
        rest = utterance.id[len(utterance.speaker) :]
        recording = None if utterance.recording is None else speaker + utterance.recording
        yield dataclasses.replace(
            utterance, id=speaker + rest, speaker=speaker, recording=recording
        )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--db_root", type=Path, required=True, help="the corpora")
    parser.add_argument("--work", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--nj", type=int, default=2, help="threads and processes")
    args = parser.parse_args()
    roots = {corpus: args.db_root / folder for corpus, folder in CORPORA.items()}
    mixture = load(ROOT / "conf" / "mixtures.yaml", MIXTURE)
    started = time.perf_counter()
    utterances = [u for source in mixture.train for u in source.utterances(roots)]
    rows = [row("read the corpora's own tables", len(utterances), started)]
    data, org, dump = args.work / "data", args.work / "org", args.work / "dump"

    def stage_1():
        found = write_set(data, repeated(utterances, args.entries), nj=args.nj)
        print(found)  # what is dropped, by reason
        return found.kept

    def stage_3():
        return format_folder(data, org, args.nj)["kept"]

    def stage_4():
        return filter_folder(org, dump, LengthLimits(0.1, 30.0))["kept"]

    def stage_5():
        texts = read_transcripts([dump / "text"])
        write_tokens(args.work / "tokens", texts, "bpe", 500, "unigram")
        return len(texts)

    for name, run in (
        ("1, normalise, filter, write", stage_1),
        ("3, audio to 16 kHz FLAC archives", stage_3),
        ("3 again, nothing to do", stage_3),
        ("4, filter by length", stage_4),
        ("5, BPE tokens", stage_5),
    ):
        started = time.perf_counter()
        rows.append(row(f"stage {name}", run(), started))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows.append(["peak memory of the main process", "", "", f"{peak:.2f} GiB"])
    header = ["what", "utterances", "seconds", "utterances per second"]
    report(f"Data stages, {args.entries} entries, {args.nj} jobs", header, rows, args)


def row(name: str, count: int, started: float) -> list[object]:
    seconds = time.perf_counter() - started
    return [name, count, f"{seconds:.1f}", f"{count / seconds:.0f}"]


if __name__ == "__main__":
    main()
