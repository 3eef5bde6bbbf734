"""Read the lengths of many audio files."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from espnet_mlma.audio import SAMPLE_RATE, AudioInfo, probe
from espnet_mlma.audio.archives import AudioFile, iter_archive
from espnet_mlma.data.utterance import Utterance
from espnet_mlma.errors import MlmaError

_SECONDS_BETWEEN_REPORTS = 10


def lengths(
    utterances: Collection[Utterance], nj: int, label: str
) -> dict[AudioFile, AudioInfo | MlmaError]:
    """Find the length of each utterance's audio file; read only files of unknown length.

    A file whose length the corpus gives must exist and not be empty. Whether it is damaged shows
    when it is decoded, in stage 3.

    Args:
        utterances: of one set.
        nj, label: as for `probe_all`.

    Returns:
        The length of each audio file, or the error that says why it has none.

    Raises:
        MlmaError: an archive is missing or damaged.
    """
    known = {u.audio: u.seconds for u in utterances if u.seconds is not None and u.start is None}
    unknown = {utterance.audio for utterance in utterances} - known.keys()
    found = probe_all(unknown, nj, label)
    for audio, seconds in known.items():
        info = AudioInfo(SAMPLE_RATE, round(seconds * SAMPLE_RATE))
        found[audio] = _problem_of_file(audio) or info
    return found


def _problem_of_file(audio: AudioFile) -> MlmaError | None:
    """Say why an audio file is missing or empty, without reading it."""
    try:
        size = os.stat(audio.path).st_size
    except (OSError, ValueError) as error:
        return MlmaError(f"{audio}: {getattr(error, 'strerror', None) or error}")
    return None if size else MlmaError(f"{audio}: is an empty file")


def probe_all(
    audios: Collection[AudioFile], nj: int, label: str
) -> dict[AudioFile, AudioInfo | MlmaError]:
    """Read the length of each audio file once, and each archive in one pass.

    Args:
        audios: the audio files; duplicates are read once.
        nj: threads.
        label: name of this work in progress reports.

    Returns:
        The length of each audio file, or the error that says why it has none.

    Raises:
        MlmaError: an archive is missing or damaged.
    """
    single = list(dict.fromkeys(audio for audio in audios if audio.member is None))
    members = {(audio.path, audio.member) for audio in audios if audio.member is not None}
    archives = [
        (path, [member for _, member in group])
        for path, group in groupby(sorted(members), lambda place: place[0])
    ]
    found: dict[AudioFile, AudioInfo | MlmaError] = {}
    reported = time.monotonic()
    with ThreadPoolExecutor(nj) as pool:
        # Archives first: each is one long job.
        for part in pool.map(lambda work: _probe_archive(*work), archives):
            found.update(part)
        for number, info in enumerate(pool.map(_probe_file, single), 1):
            found[single[number - 1]] = info
            if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                print(f"{label}: read the length of {number} of {len(single)} files", flush=True)
    return found


def _probe_file(audio: AudioFile) -> AudioInfo | MlmaError:
    try:
        return probe(audio.path)
    except MlmaError as error:
        return error
    except (OSError, ValueError) as error:  # a path that the system does not accept
        return MlmaError(f"{audio}: {error}")


def _probe_archive(archive: Path, members: list[str]) -> dict[AudioFile, AudioInfo | MlmaError]:
    found: dict[AudioFile, AudioInfo | MlmaError] = {}
    for member in members:
        audio = AudioFile(archive, member)
        found[audio] = MlmaError(f"{audio}: not found in the archive")
    for member, content in iter_archive(archive, members):
        audio = AudioFile(archive, member)
        try:
            found[audio] = probe(content, str(audio))
        except MlmaError as error:
            found[audio] = error
    return found
