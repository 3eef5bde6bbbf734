"""Lengths of many sound files at once."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from espnet_mlma.audio import AudioInfo, probe
from espnet_mlma.audio.archives import ArchiveMember, AudioFile, iter_archive
from espnet_mlma.errors import MlmaError

Audio = AudioFile | ArchiveMember
Found = dict[Audio, AudioInfo | MlmaError]
_SECONDS_BETWEEN_REPORTS = 10


def probe_all(audios: Collection[Audio], nj: int, label: str) -> Found:
    """Read the length of each sound file once; an archive is read in one pass.

    Args:
        audios: the sound files; doubles are read once.
        nj: threads.
        label: what to call this work when reporting progress.

    Returns:
        For each sound file its length, or the error that says why it has none.

    Raises:
        MlmaError: an archive is missing or damaged.
    """
    files = list(dict.fromkeys(audio for audio in audios if isinstance(audio, AudioFile)))
    members = sorted(
        {audio for audio in audios if isinstance(audio, ArchiveMember)},
        key=lambda audio: (audio.archive, audio.member),
    )
    archives = [(path, list(group)) for path, group in groupby(members, lambda m: m.archive)]
    found: Found = {}
    reported = time.monotonic()
    with ThreadPoolExecutor(nj) as pool:
        # Archives first: each is one long job.
        for part in pool.map(lambda work: _probe_archive(*work), archives):
            found.update(part)
        for number, info in enumerate(pool.map(_probe_file, files), 1):
            found[files[number - 1]] = info
            if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                print(f"{label}: looked at {number} of {len(files)} files", flush=True)
    return found


def _probe_file(audio: AudioFile) -> AudioInfo | MlmaError:
    try:
        if not audio.path.is_file() and audio.path.exists():  # a pipe would be waited for
            return MlmaError(f"{audio}: not a file")
        return probe(audio.path)
    except MlmaError as error:
        return error
    except (OSError, ValueError) as error:  # a path that the system does not take
        return MlmaError(f"{audio}: {error}")


def _probe_archive(archive: Path, members: list[ArchiveMember]) -> Found:
    found: Found = {m: MlmaError(f"{m}: not in the archive") for m in members}
    for name, data in iter_archive(archive, [member.member for member in members]):
        member = ArchiveMember(archive, name)
        try:
            found[member] = probe(data, str(member))
        except MlmaError as error:
            found[member] = error
    return found
