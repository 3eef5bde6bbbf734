"""Results of recognition: tokens, words, transcripts, and updates of a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A symbol that the model wrote.

    Attributes:
        id: its index in the token list.
        text: its entry in the token list.
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
    """A word and when it was spoken.

    Attributes:
        text: without spaces.
        start, end: seconds from the beginning of the audio.
        confidence: probability that the word is right, 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """The text of a recording.

    Attributes:
        text: words separated by single spaces.
        words: the same words with times and confidence.
        language: ISO 639-1: from the user, else from the model's language token, else guessed from
            the text; None: the text is too short for a guess.
        score: log-probability of the path or prefix, natural logarithm.
        duration: seconds of audio.
        tokens: the symbols that the model wrote, with times.
    """

    text: str
    words: tuple[Word, ...]
    language: str | None
    score: float
    duration: float
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class StreamUpdate:
    """What a stream knows after one more piece of audio.

    Attributes:
        final: words that are now final, times from the beginning of the stream.
        partial: text after all final words; it may change.
    """

    final: tuple[Word, ...]
    partial: str


def join(parts: Sequence[Transcript], duration: float) -> Transcript:
    """Join the parts of a recording; the language is that of most of the text.

    Args:
        parts: in order, with times from the beginning of the recording.
        duration: of the recording, seconds.
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
