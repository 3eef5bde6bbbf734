"""Read the lengths of many audio files."""

from __future__ import annotations

import os
import stat
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
# Bytes per second of speech, from Opus with pauses left out to 32-bit stereo at 48 kHz.
_LEAST_BYTES, _MOST_BYTES = 100, 400_000


def lengths(
    utterances: Collection[Utterance], nj: int, label: str
) -> dict[AudioFile, AudioInfo | MlmaError]:
    """Find the length of each utterance's audio file; read only files of unknown length.

    A file whose length the corpus gives must exist and not be empty. A length that does not fit
    the size of the file is ignored, and the file is read. Whether a file is damaged shows when it
    is decoded, in stage 3.

    Args:
        utterances: of one set.
        nj, label: as for `probe_all`.

    Returns:
        The length of each audio file, or the error that says why it has none.

    Raises:
        MlmaError: an archive is missing or damaged.
    """
    known = {u.audio: u.seconds for u in utterances if u.seconds is not None and u.start is None}
    given = {audio: _given(audio, seconds) for audio, seconds in known.items()}
    found = {audio: info for audio, info in given.items() if info is not None}
    unknown = {utterance.audio for utterance in utterances} - found.keys()
    if wrong := len(given) - len(found):
        print(
            f"note: {label}: {wrong} of {len(given)} given lengths do not fit; reading these files"
        )
    return found | probe_all(unknown, nj, label)


def _given(audio: AudioFile, seconds: float) -> AudioInfo | MlmaError | None:
    """Check a length that a corpus gives, without reading the file.

    Returns:
        The length; the error if the file is missing or empty; None if the file must be read.
    """
    try:
        status = os.stat(audio.path)
    except (OSError, ValueError) as error:
        return MlmaError(f"{audio}: {getattr(error, 'strerror', None) or error}")
    if not status.st_size:
        return MlmaError(f"{audio}: is an empty file")
    if not stat.S_ISREG(status.st_mode):
        return None
    is_alone = audio.member is None  # the size of an archive says nothing about one member
    if is_alone and not _LEAST_BYTES * seconds <= status.st_size <= _MOST_BYTES * seconds:
        return None
    return AudioInfo(SAMPLE_RATE, round(seconds * SAMPLE_RATE))


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
