"""What a corpus reader yields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A sound file of any format and rate that libsndfile reads."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A sound file inside a tar archive, compressed or not."""

    archive: Path
    member: str

    def __str__(self) -> str:
        return f"{self.archive}:{self.member}"


@dataclass(frozen=True, slots=True)
class Utterance:
    """One transcribed stretch of speech by one speaker.

    Args:
        id: `<speaker>-<rest>`, unique over all corpora.
        audio: where the sound lies.
        text: the transcript as the corpus has it.
        speaker: `<corpus tag>_<language>_<name>`, of the characters A-Z a-z 0-9 and _ alone:
            `-` sorts before all of them, so ids in C order are in the order of their speakers.
        lang: ISO 639-1 code.
        start, end: the span of the recording in seconds; None for the whole file.
        recording: id of the recording that the span is of; None for the whole file.
    """

    id: str
    audio: AudioFile | ArchiveMember
    text: str
    speaker: str
    lang: str
    start: float | None = None
    end: float | None = None
    recording: str | None = None

    @property
    def corpus(self) -> str:
        """The corpus tag, such as `cv`."""
        return self.speaker.partition("_")[0]


def speaker_id(tag: str, lang: str, name: str) -> str:
    """The speaker id `<tag>_<lang>_<name>`; characters that would break sorting become `_`."""
    return f"{tag}_{lang}_{re.sub(r'[^A-Za-z0-9]', '_', name)}"
