"""Utterances and drops, as corpus readers yield them, and their ids."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote

from espnet_mlma.audio.archives import AudioFile

# Control characters, line and paragraph separators, and bytes that are not UTF-8.
_UNSAFE = {"Cc", "Zl", "Zp", "Cs"}
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Utterance:
    """One transcribed utterance of one speaker.

    Attributes:
        id: `<speaker>-<rest>`, unique over all corpora.
        audio: its audio file.
        text: the transcript as the corpus has it.
        speaker: `<corpus tag>_<language>_<name>`, made of A-Z a-z 0-9 and _ only. `-` sorts before
            these, so sorting by id also sorts by speaker, as Kaldi requires.
        lang: ISO 639-1 code.
        start, end: its span of the file in seconds; None for the whole file.
        recording: id of the recording with the span; None for the whole file.
        seconds: length of the utterance if the corpus gives it; None: it is measured.
    """

    id: str
    audio: AudioFile
    text: str
    speaker: str
    lang: str
    start: float | None = None
    end: float | None = None
    recording: str | None = None
    seconds: float | None = None

    @property
    def corpus(self) -> str:
        """The corpus tag, such as `cv`."""
        return corpus_of(self.speaker)


@dataclass(frozen=True, slots=True)
class Drop:
    """An utterance that is dropped.

    Attributes:
        id: of the utterance, or `<table>:<line>` if it has none.
        reason: key to count drops by.
        detail: what is wrong, and where.
        speaker: if known; a speaker of the test set must not be trained on.
        corpus, lang: corpus tag and language; `prepare` adds them to what readers yield.
    """

    id: str
    reason: str
    detail: str
    speaker: str = ""
    corpus: str = ""
    lang: str = ""


def corpus_of(speaker: str) -> str:
    """Return the corpus tag of a speaker id, such as `cv`."""
    return speaker.partition("_")[0]


def speaker_id(tag: str, lang: str, name: str) -> str:
    """Make the speaker id `<tag>_<lang>_<name>`; characters that break sorting become `_`."""
    return f"{tag}_{lang}_{re.sub(r'[^A-Za-z0-9]', '_', name)}"


def utterance_id(speaker: str, rest: str) -> str:
    """Make an utterance id from a speaker and the rest, valid as the key of a table."""
    return f"{speaker}-{table_key(rest)}"


def table_key(text: str) -> str:
    """Percent-encode blanks and control characters, which would end the key of a table."""
    return re.sub(r"[\s\x00-\x1f\x7f]", lambda found: quote(found[0]), text)


def name_problem(name: str) -> str | None:
    """Say why a file name in a corpus's table is not safe to use.

    Args:
        name: as the table has it, or the path in the corpus's folder.

    Returns:
        What is wrong; None: the name is safe.
    """
    if not name.strip():
        return "the name of the audio file is empty"
    if {"", ".."} & set(name.split("/")):
        return f"{_shown(name)}: leads out of the corpus's folder"
    return path_problem(name)


def path_problem(path: str) -> str | None:
    """Say why a path is not valid in a `wav.scp`; None: it is valid."""
    if any(unicodedata.category(char) in _UNSAFE for char in path):
        return f"{_shown(path)}: has a control character or a byte that is not UTF-8"
    if path != path.strip():
        return f"{_shown(path)}: begins or ends with white space"
    if path.endswith("|"):
        return f"{_shown(path)}: ends with |, so readers of wav.scp would run it as a command"
    if max(len(part.encode()) for part in path.split("/")) > _LONGEST_NAME:
        return f"{_shown(path)}: has a name of more than {_LONGEST_NAME} bytes"
    return None


def _shown(name: str) -> str:
    return ascii(name if len(name) < 100 else f"{name[:48]}...{name[-48:]}")
