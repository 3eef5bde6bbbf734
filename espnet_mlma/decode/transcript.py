"""What a recogniser returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A symbol the model wrote.

    Attributes:
        id: its index in the token list.
        text: as the token list has it.
        start, end: seconds from the beginning of the audio.
        score: mean log-probability of the symbol over its frames, natural logarithm.
    """

    id: int
    text: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Word:
    """A word and where it was said.

    Attributes:
        text: without spaces.
        start, end: seconds from the beginning of the audio.
        confidence: how probably it is right, 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was recognised.

    Attributes:
        text: words separated by single spaces.
        words: the same words with their times.
        language: code as the user gave it, as the model's token says it, or guessed from the text
            (ISO 639-1); None: the text is too short for a guess.
        score: log-probability of the path or prefix, natural logarithm.
        duration: seconds of audio.
        tokens: the symbols the model wrote, with their times.
    """

    text: str
    words: tuple[Word, ...]
    language: str | None
    score: float
    duration: float
    tokens: tuple[Token, ...]


def join(parts: Sequence[Transcript], duration: float) -> Transcript:
    """Parts of one recording as one transcript, in the language of most of the text.

    Args:
        parts: in order, with times from the beginning of the recording.
        duration: of all of it, seconds.
    """
    votes = Counter[str]()
    for part in parts:
        if part.language is not None:
            votes[part.language] += len(part.text)
    return Transcript(
        " ".join(part.text for part in parts if part.text),
        tuple(word for part in parts for word in part.words),
        votes.most_common(1)[0][0] if votes else None,
        sum(part.score for part in parts),
        duration,
        tuple(token for part in parts for token in part.tokens),
    )
