"""Define sentences and segments, and their form as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

_DECIMALS = 4  # of seconds: a tenth of a millisecond, two samples


@dataclass(frozen=True, slots=True)
class Sentence:
    """Hold an utterance in its recording, with the results of the stages.

    Attributes:
        id: id of the utterance.
        recording: id of the recording; equals `id` if the recording has one utterance only.
        audio: path of the sound file.
        offset: start of the sentence in the file, seconds.
        start, end: in the recording, seconds.
        speaker: id of the speaker.
        text: transcript.
        target: language of the translation, ISO 639-1.
        translation: the text in that language.
        words: each spoken word with its start and end in the recording, seconds.
        score: mean log-probability of the symbols of the text, natural logarithm.
        pieces: words of the translation; joined they are the translation.
        pairs: aligned indices (word, piece).
        dropped: why it is not used for training; None: it is used.
    """

    id: str
    recording: str
    audio: str
    offset: float
    start: float
    end: float
    speaker: str
    text: str
    target: str | None = None
    translation: str | None = None
    words: tuple[tuple[str, float, float], ...] | None = None
    score: float | None = None
    pieces: tuple[str, ...] | None = None
    pairs: tuple[tuple[int, int], ...] | None = None
    dropped: str | None = None

    def __post_init__(self) -> None:
        _check_text(self, ("id", "recording", "audio", "speaker", "text"))
        if self.offset < 0 or not 0 <= self.start <= self.end:
            raise ValueError(f"times {self.offset}, {self.start}-{self.end}")
        counts = len(self.words or ()), len(self.pieces or ())
        for pair in self.pairs or ():
            if not all(0 <= index < count for index, count in zip(pair, counts, strict=True)):
                raise ValueError(f"pair {pair} of {counts[0]} words and {counts[1]} pieces")


@dataclass(frozen=True, slots=True)
class Part:
    """Place a span of a sound file, `start` to `end` seconds, at `at` seconds of a segment."""

    audio: str
    start: float
    end: float
    at: float

    def __post_init__(self) -> None:
        if not self.audio or not 0 <= self.start < self.end or self.at < 0:
            raise ValueError(f"part {self.start}-{self.end} at {self.at}")


@dataclass(frozen=True, slots=True)
class Segment:
    """Hold speech of up to 30 chunks and the translation emitted after each.

    Attributes:
        id: id of the segment.
        parts: spans of sound; silence elsewhere.
        chunks: length in chunks of 0.96 s.
        turns: translation emitted after each chunk, including its spaces.
        source, target: languages, ISO 639-1.
        heard: source words within the segment; None: unknown.
    """

    id: str
    parts: tuple[Part, ...]
    chunks: int
    turns: tuple[str, ...]
    source: str
    target: str
    heard: str | None = None

    def __post_init__(self) -> None:
        _check_text(self, ("id", "source", "target"))
        if len(self.turns) != self.chunks or not self.turns:
            raise ValueError(f"{len(self.turns)} turns for {self.chunks} chunks")

    def chunks_at(self, multiplier: int) -> int:
        """Return the length in chunks, rounded up to whole turns of `multiplier` chunks."""
        return -(-self.chunks // multiplier) * multiplier


def _check_text(record: object, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, str) or not (value or name == "text"):
            raise ValueError(f"{name} is {value!r}")


def sentence_of(fields: dict) -> Sentence:
    """Build a sentence from its JSON object; raise TypeError or ValueError if invalid."""
    for name in ("words", "pairs"):
        if fields.get(name) is not None:
            fields[name] = tuple(tuple(item) for item in fields[name])
    if fields.get("pieces") is not None:
        fields["pieces"] = tuple(fields["pieces"])
    return Sentence(**fields)


def segment_of(fields: dict) -> Segment:
    """Build a segment from its JSON object; raise TypeError, KeyError or ValueError if invalid."""
    fields["parts"] = tuple(Part(**part) for part in fields["parts"])
    fields["turns"] = tuple(fields["turns"])
    return Segment(**fields)


def line_of(record: Sentence | Segment) -> str:
    """Render a record as one line of JSON, without fields that are None."""
    fields = {name: value for name, value in asdict(record).items() if value is not None}
    return json.dumps(_rounded(fields), ensure_ascii=False) + "\n"


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, tuple | list) else value
