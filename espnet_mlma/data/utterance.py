"""What a corpus reader yields."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote

from espnet_mlma.audio.archives import ArchiveMember, AudioFile

# Control characters, line and paragraph separators, and bytes that are not UTF-8.
_UNSAFE = {"Cc", "Zl", "Zp", "Cs"}
_LONGEST_NAME = 255


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
        return corpus_of(self.speaker)


@dataclass(frozen=True, slots=True)
class Drop:
    """One utterance that is left out.

    Args:
        id: of the utterance, or `<table>:<line>` where it has none.
        reason: a word to count it by.
        detail: what is wrong, and where.
        speaker: as far as known, so that training does not hear a held-out one.
    """

    id: str
    reason: str
    detail: str
    speaker: str = ""


def corpus_of(speaker: str) -> str:
    """Return the corpus tag of a speaker id, such as `cv`."""
    return speaker.partition("_")[0]


def speaker_id(tag: str, lang: str, name: str) -> str:
    """The speaker id `<tag>_<lang>_<name>`; characters that would break sorting become `_`."""
    return f"{tag}_{lang}_{re.sub(r'[^A-Za-z0-9]', '_', name)}"


def utterance_id(speaker: str, rest: str) -> str:
    """Join a speaker and the rest to an id that can be the key of a table."""
    return f"{speaker}-{table_key(rest)}"


def table_key(text: str) -> str:
    """Write blanks and control characters, which would end a table's key, as `%20` and so on."""
    return re.sub(r"[\s\x00-\x1f\x7f]", lambda found: quote(found[0]), text)


def name_problem(name: str) -> str | None:
    """Say why a name in a corpus's table cannot be that of one of its sound files.

    Args:
        name: a file's name as the table has it, or its path below the corpus's folder.

    Returns:
        What is wrong with it; None if nothing is.
    """
    if not name.strip():
        return "an empty name of a sound file"
    if {"", ".."} & set(name.split("/")):
        return f"{_shown(name)}: leads out of the corpus's folder"
    return path_problem(name)


def path_problem(path: str) -> str | None:
    """Say why a path of a sound file cannot stand in a `wav.scp`; None: it can."""
    if any(unicodedata.category(char) in _UNSAFE for char in path):
        return f"{_shown(path)}: has a control character or a byte that is not UTF-8"
    if path != path.strip():
        return f"{_shown(path)}: begins or ends with a blank"
    if path.endswith("|"):
        return f"{_shown(path)}: ends in |, which readers of wav.scp run as a command"
    if max(len(part.encode()) for part in path.split("/")) > _LONGEST_NAME:
        return f"{_shown(path)}: a name of more than {_LONGEST_NAME} bytes"
    return None


def _shown(name: str) -> str:
    return ascii(name if len(name) < 100 else f"{name[:48]}...{name[-48:]}")
