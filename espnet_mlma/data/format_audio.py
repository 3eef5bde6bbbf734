"""Stage 3: all audio of a set as 16 kHz mono FLAC, packed in Kaldi archives.

The set is cut into shards that are made in parallel, each an archive and a record of what is in it,
written last. A run that was stopped goes on with the shards that have no record yet, or a record of
other audio; `--verify` also makes those again that are no longer as they were written. The tables
of the set, `wav.scp` last of all, are written when every shard is there.

    python -m espnet_mlma.data.format_audio --data data/train --out dump/raw/org/train --nj 4
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from itertools import groupby
from pathlib import Path

from espnet_mlma import files, workers
from espnet_mlma.arguments import ArgumentParser, refuse_to_replace
from espnet_mlma.audio.archives import ArchiveMember, parse_scp_value
from espnet_mlma.claims import claim
from espnet_mlma.data import tables as datadir
from espnet_mlma.data.arks import DamagedShard, Item, Record, Shard, finished, make
from espnet_mlma.data.utterance import path_problem
from espnet_mlma.errors import MlmaError, run_cli

SHARD_ITEMS = 400
_MADE_BY = "stages 1 and 2"
_SECONDS_BETWEEN_REPORTS = 10


def read_items(data: Path) -> list[Item]:
    """What a data folder says about the sound of each utterance, in C order of the ids.

    Args:
        data: folder with `wav.scp` and, as there may be, `segments` and `utt2speed`.

    Raises:
        MlmaError: a table is missing, or does not fit another.
    """
    scp, table = data / "wav.scp", data / "segments"
    sound = datadir.read(scp, _MADE_BY)
    segments = datadir.read(table, _MADE_BY) if table.exists() else {id_: id_ for id_ in sound}
    names = (*datadir.PER_UTTERANCE, table.name if table.exists() else scp.name)
    datadir.read_alike(data, names, _MADE_BY)  # now, not after hours of work
    speeds = {}
    if (data / "utt2speed").exists():
        speeds = datadir.read_for(data / "utt2speed", segments, _MADE_BY)
        speeds = datadir.numbers(data / "utt2speed", speeds, float, _MADE_BY)
    audio = {}
    for recording, value in sound.items():
        try:
            audio[recording] = parse_scp_value(value)
        except MlmaError as error:
            raise datadir.row_error(scp, recording, f"{error}; run {_MADE_BY} again") from None
    items = []
    for id_, segment in segments.items():
        recording, *span = segment.split() or [""]
        try:
            start, end = map(float, span) if span else (None, None)
        except ValueError:  # no numbers, or not two
            start = end = math.nan
        if recording not in sound or (span and not 0 <= start < end < math.inf):
            problem = f"no such recording, or no span, for {id_}; run {_MADE_BY} again"
            raise datadir.row_error(table, id_, problem)
        items.append(Item(id_, audio[recording], start, end, speeds.get(id_, 1.0)))
    return sorted(items, key=lambda item: item.id)


def cut(items: Sequence[Item], folder: Path) -> list[Shard]:
    """Cut a set into shards: one for each archive that is read, others of `SHARD_ITEMS`.

    Args:
        items: the utterances of the set.
        folder: where the shards lie.
    """
    in_archives = [item for item in items if isinstance(item.audio, ArchiveMember)]
    in_archives.sort(key=lambda item: (item.audio.archive, item.audio.member))
    groups = [list(of) for _, of in groupby(in_archives, lambda item: item.audio.archive)]
    files = [item for item in items if not isinstance(item.audio, ArchiveMember)]
    groups += [files[i : i + SHARD_ITEMS] for i in range(0, len(files), SHARD_ITEMS)]
    return [
        Shard(folder / f"shard.{number:05d}.ark", tuple(group))
        for number, group in enumerate(groups, 1)
    ]


def make_all(shards: Sequence[Shard], nj: int, label: str, verify: bool = False) -> list[Record]:
    """Make the shards that are not there yet, in parallel, and show how far it is.

    Args:
        shards: all shards of a set.
        nj: processes.
        label: what to call this work when reporting progress.
        verify: compare the checksums of all that are there, not only of those written to since.

    Returns:
        The records of all shards, in their order.

    Raises:
        MlmaError: a source archive is damaged, the disk is full, or a process was killed.
    """
    records: dict[Path, Record | None] = {}
    for shard in shards:
        try:
            records[shard.path] = finished(shard, verify)
        except DamagedShard as error:
            records[shard.path] = None
            print(f"{label}: {error} and is made again", flush=True)
    todo = [shard for shard in shards if records[shard.path] is None]
    if len(todo) < len(shards):
        print(f"{label}: {len(shards) - len(todo)} of {len(shards)} shards are there", flush=True)
    reported = time.monotonic()
    for number, (shard, record) in enumerate(_run(todo, nj), 1):
        records[shard.path] = record
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            print(f"{label}: {number} of {len(todo)} shards made", flush=True)
    return [records[shard.path] for shard in shards]


def _run(shards: Sequence[Shard], nj: int) -> Iterator[tuple[Shard, Record]]:
    if min(nj, len(shards)) <= 1:
        yield from ((shard, make(shard)) for shard in shards)
        return
    with workers.pool(nj, "formats audio") as pool:
        futures = {pool.submit(make, shard): shard for shard in shards}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def format_folder(data: Path, out: Path, nj: int, verify: bool = False) -> Counter[str]:
    """Write the formatted set.

    Args:
        data: data folder of stage 1 or 2.
        out: `dump/raw/org/<set>`, or `dump/raw/<set>` for a test set.
        nj: processes.
        verify: read the archives of an earlier run, and make those again that are damaged.

    Returns:
        How many utterances were kept (`kept`) and dropped, by reason.

    Raises:
        MlmaError: see `make_all`; no utterance is left; or another process formats the set.
    """
    items = read_items(data)
    if problem := path_problem(str(out)):  # a path that wav.scp is to hold
        raise MlmaError(f"--out {problem}; choose another place")
    try:
        with claim(out / "data", "formats it"):
            return _format(data, items, out, nj, verify)
    except OSError as error:
        raise MlmaError(
            f"cannot write {out}: {error.strerror}; make room or choose another --dumpdir, "
            "and the same command goes on from here"
        ) from None


def _format(data: Path, items: Sequence[Item], out: Path, nj: int, verify: bool) -> Counter[str]:
    scp = out / "wav.scp"
    (out / "data").mkdir(parents=True, exist_ok=True)
    scp.unlink(missing_ok=True)  # until it is back, no later stage takes the set for whole
    shards = cut(items, out / "data")
    records = make_all(shards, nj, out.name, verify)
    kept = sorted(
        (id_, f"{shard.path}:{offset}", samples)
        for shard, record in zip(shards, records, strict=True)
        for id_, offset, samples in record.kept
    )
    dropped = [tuple(drop) for record in records for drop in record.dropped]
    if not kept:
        first = dropped[0] if dropped else ("", "", "no utterances")
        raise MlmaError(f"{data}: no sound could be read; for one {first[0]}: {first[2]}")
    if notes := [note for record in records for _, note in record.notes]:
        print(f"{out.name}: {len(notes)} read with a warning; the first: {notes[0]}")
    _remove_others(out / "data", shards)
    datadir.write_utterance_tables(data, out, [id_ for id_, *_ in kept], _MADE_BY)
    datadir.write(out / "utt2num_samples", ((id_, samples) for id_, _, samples in kept))
    datadir.write_dropped(out / "dropped.tsv", dropped)
    files.write(out / "feats_type", "raw\n")
    files.write(out / "audio_format", "flac.ark\n")
    datadir.write(scp, ((id_, where) for id_, where, _ in kept))
    return Counter(reason for _, reason, _ in dropped) + Counter(kept=len(kept))


def _remove_others(folder: Path, shards: Sequence[Shard]) -> None:
    """Remove what an earlier run with other utterances left."""
    wanted = {path for shard in shards for path in (shard.path, shard.record_path)}
    for pattern in ("shard.*", ".shard.*"):  # finished ones, and those of runs that were killed
        for path in folder.glob(pattern):
            if path not in wanted:
                path.unlink()


def main() -> None:
    """Entry point; see the module's head."""
    parser = ArgumentParser(prog="python -m espnet_mlma.data.format_audio")
    parser.add_argument("--data", type=Path, required=True, help="data folder of stage 1 or 2")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--nj", type=int, default=4, help="processes")
    parser.add_argument(
        "--verify", action="store_true", help="compare what is there with its checksums first"
    )
    args = parser.parse_args()
    refuse_to_replace(args.out, [args.data])
    counts = format_folder(args.data, args.out, args.nj, args.verify)
    kept = counts.pop("kept")
    dropped = ", ".join(f"{reason} {n}" for reason, n in sorted(counts.items())) or "none"
    print(f"{args.out}: {kept} utterances; dropped: {dropped}")


if __name__ == "__main__":
    run_cli(main)
