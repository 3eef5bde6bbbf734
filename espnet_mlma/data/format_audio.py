"""Stage 3: convert the audio of a set to 16 kHz mono FLAC in Kaldi archives.

The set is split into shards, which are made in parallel (`shards.py`). Re-running skips shards that
are finished and whose sources have not changed; `--verify` also checks their checksums. The tables
of the set are written when all shards are finished, `wav.scp` last. Fingerprints of the audio lie
beside the archives, for stage 4.

    mlma recipe format-audio --data data/train --output dump/raw/org/train --nj 4
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
from espnet_mlma.arguments import ArgumentParser, first_line, refuse_to_replace
from espnet_mlma.audio.archives import parse_scp_value
from espnet_mlma.claims import claim
from espnet_mlma.data import tables
from espnet_mlma.data.shards import (
    AudioShard,
    DamagedShard,
    ShardItem,
    ShardRecord,
    finished,
    make_shard,
)
from espnet_mlma.data.utterance import path_problem
from espnet_mlma.errors import MlmaError

SHARD_ITEMS = 400
_MADE_BY = "stages 1 and 2"
_SECONDS_BETWEEN_REPORTS = 10


def read_items(data: Path) -> list[ShardItem]:
    """Read where the audio of each utterance is, in C order of the ids.

    Args:
        data: folder with `wav.scp` and, optionally, `segments` and `utt2speed`.

    Raises:
        MlmaError: a table is missing or damaged, or two tables disagree.
    """
    scp, table = data / "wav.scp", data / "segments"
    sound = tables.read(scp, _MADE_BY)
    segments = tables.read(table, _MADE_BY) if table.exists() else {id_: id_ for id_ in sound}
    names = (*tables.PER_UTTERANCE, table.name if table.exists() else scp.name)
    tables.read_alike(data, names, _MADE_BY)  # fail before hours of work
    speeds = {}
    if (data / "utt2speed").exists():
        speeds = tables.read_for(data / "utt2speed", segments, _MADE_BY)
        speeds = tables.numbers(data / "utt2speed", speeds, float, _MADE_BY)
    audio = {}
    for recording, value in sound.items():
        try:
            audio[recording] = parse_scp_value(value)
        except MlmaError as error:
            raise tables.row_error(scp, recording, f"{error}; run {_MADE_BY} again") from None
    items = []
    for id_, segment in segments.items():
        recording, *span = segment.split() or [""]
        seconds = _parse_span(span)
        if recording not in sound or (span and seconds is None):
            problem = f"{id_} has an unknown recording or an invalid span; run {_MADE_BY} again"
            raise tables.row_error(table, id_, problem)
        start, end = seconds or (None, None)
        end = None if end == -1 else end  # to the end of the file
        items.append(ShardItem(id_, audio[recording], start, end, speeds.get(id_, 1.0)))
    return sorted(items, key=lambda item: item.id)


def _parse_span(fields: Sequence[str]) -> tuple[float, float] | None:
    try:
        start, end = map(float, fields)
    except ValueError:  # not two numbers
        return None
    return (start, end) if end == -1 and start >= 0 or 0 <= start < end < math.inf else None


def split_into_shards(items: Sequence[ShardItem], folder: Path) -> list[AudioShard]:
    """Split a set into shards: one for each tar archive, others of `SHARD_ITEMS` files.

    Args:
        items: the utterances of the set.
        folder: of the shards.
    """
    in_archives = [item for item in items if item.audio.member is not None]
    in_archives.sort(key=lambda item: (item.audio.path, item.audio.member or ""))
    groups = [list(of) for _, of in groupby(in_archives, lambda item: item.audio.path)]
    single = [item for item in items if item.audio.member is None]
    groups += [single[i : i + SHARD_ITEMS] for i in range(0, len(single), SHARD_ITEMS)]
    return [
        AudioShard(folder / f"shard.{number:05d}.ark", tuple(group))
        for number, group in enumerate(groups, 1)
    ]


def make_all(
    shards: Sequence[AudioShard], nj: int, label: str, verify: bool = False
) -> list[ShardRecord]:
    """Make the unfinished shards in parallel, and report progress.

    Args:
        shards: all shards of a set.
        nj: processes.
        label: name of this work in progress reports.
        verify: compare the checksums of all finished shards.

    Returns:
        The records of all shards, in their order.

    Raises:
        MlmaError: a source archive is damaged, the disk is full, or a process was killed.
    """
    records: dict[Path, ShardRecord] = {}
    todo = []
    for shard in shards:
        try:
            record = finished(shard, verify)
        except DamagedShard as error:
            record = None
            print(f"{label}: {error}; making it again", flush=True)
        if record is None:
            todo.append(shard)
        else:
            records[shard.path] = record
    if len(todo) < len(shards):
        print(
            f"{label}: {len(shards) - len(todo)} of {len(shards)} shards are finished", flush=True
        )
    reported = time.monotonic()
    for number, (shard, record) in enumerate(_run(todo, nj), 1):
        records[shard.path] = record
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            print(f"{label}: {number} of {len(todo)} shards made", flush=True)
    return [records[shard.path] for shard in shards]


def _run(shards: Sequence[AudioShard], nj: int) -> Iterator[tuple[AudioShard, ShardRecord]]:
    if min(nj, len(shards)) <= 1:
        yield from ((shard, make_shard(shard)) for shard in shards)
        return
    with workers.pool(nj, "formats audio") as pool:
        futures = {pool.submit(make_shard, shard): shard for shard in shards}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def format_folder(data: Path, out: Path, nj: int, verify: bool = False) -> Counter[str]:
    """Format the audio of a set.

    Args:
        data: data folder of stage 1 or 2.
        out: `dump/raw/org/<set>`, or `dump/raw/<set>` for a test set.
        nj: processes.
        verify: check the archives of an earlier run, and replace damaged ones.

    Returns:
        How many utterances were kept (`kept`) and dropped, by reason.

    Raises:
        MlmaError: as in `make_all`; no utterance is left; or another process formats the set.
    """
    items = read_items(data)
    if problem := path_problem(str(out)):  # wav.scp will contain it
        raise MlmaError(f"--output {problem}; choose another folder")
    try:
        with claim(out / "data", "formats it"):
            return _format(data, items, out, nj, verify)
    except OSError as error:
        raise MlmaError(
            f"cannot write {out}: {error.strerror}; free some space or choose another --dumpdir, "
            "then run the same command again"
        ) from None


def _format(
    data: Path, items: Sequence[ShardItem], out: Path, nj: int, verify: bool
) -> Counter[str]:
    scp = out / "wav.scp"
    (out / "data").mkdir(parents=True, exist_ok=True)
    scp.unlink(missing_ok=True)  # later stages take a set with wav.scp for complete
    shards = split_into_shards(items, out / "data")
    records = make_all(shards, nj, out.name, verify)
    kept = sorted(
        (id_, f"{shard.path}:{offset}", samples)
        for shard, record in zip(shards, records, strict=True)
        for id_, offset, samples in record.kept
    )
    dropped = [(id_, why, detail) for record in records for id_, why, detail in record.dropped]
    if not kept:
        first = dropped[0] if dropped else ("", "", "no utterances")
        raise MlmaError(f"{data}: no audio could be read; the first, {first[0]}: {first[2]}")
    if notes := [note for record in records for _, note in record.notes]:
        print(f"{out.name}: {len(notes)} warnings about audio; the first: {notes[0]}")
    _remove_others(out / "data", shards)
    tables.write_utterance_tables(data, out, [id_ for id_, *_ in kept], _MADE_BY)
    tables.write(out / "utt2num_samples", ((id_, samples) for id_, _, samples in kept))
    tables.write_dropped(out / "dropped.tsv", dropped)
    files.write(out / "feats_type", "raw\n")
    files.write(out / "audio_format", "flac.ark\n")
    tables.write(scp, ((id_, where) for id_, where, _ in kept))
    return Counter(reason for _, reason, _ in dropped) + Counter(kept=len(kept))


def _remove_others(folder: Path, shards: Sequence[AudioShard]) -> None:
    """Remove the shards of an earlier run with other utterances."""
    wanted = {
        path
        for shard in shards
        for path in (shard.path, shard.record_path, shard.fingerprints_path)
    }
    for pattern in ("shard.*", ".shard.*"):  # finished, and of killed runs
        for path in folder.glob(pattern):
            if path not in wanted:
                path.unlink()


def main(argv: Sequence[str] | None = None) -> None:
    """Run stage 3 from the command line."""
    parser = ArgumentParser(
        prog="mlma recipe format-audio",
        description=first_line(__doc__),
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder of stage 1 or 2")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--nj", type=int, default=4, help="processes")
    parser.add_argument(
        "--verify", action="store_true", help="check all finished archives by their checksums"
    )
    args = parser.parse_args(argv)
    refuse_to_replace(args.output, [args.data])
    counts = format_folder(args.data, args.output, args.nj, args.verify)
    kept = counts.pop("kept")
    print(f"{args.output}: {kept} utterances; dropped: {tables.list_counts(counts)}")
