"""Render transcripts and messages as HTML; every text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING

from espnet_mlma.text.language import NAMES as LANGUAGE_NAMES

if TYPE_CHECKING:
    from espnet_mlma.decode.transcript import Transcript, Word

DOWNLOADS = {"srt": "application/x-subrip", "json": "application/json"}


@dataclass(frozen=True)
class Level:
    """A level of confidence; lines and lightness show it, not hue.

    Attributes:
        minimum: lowest confidence of its words.
        style: class in page.css.
        label: in the legend.
    """

    minimum: float
    style: str
    label: str


LEVELS = (
    Level(0.9, "sure", "90 % or more"),
    Level(0.7, "likely", "70 to 90 %"),
    Level(0.5, "doubtful", "50 to 70 %"),
    Level(0.0, "guess", "less than 50 %"),
)


@dataclass(frozen=True)
class Column:
    """The transcript of one model so far.

    Attributes:
        model: its name.
        parts: of the transcript, in order.
        duration: of the whole audio, seconds.
        spent: seconds of recognition.
        is_finished: recognition is complete.
    """

    model: str
    parts: tuple[Transcript, ...]
    duration: float
    spent: float
    is_finished: bool

    @property
    def whole(self) -> Transcript:
        """Join the parts to one transcript."""
        from espnet_mlma.decode.transcript import join

        return join(self.parts, self.duration)


def transcripts(columns: Sequence[Column], file: str) -> str:
    """Render the models' transcripts side by side, with a legend.

    Args:
        columns: one per model.
        file: the user's name of the audio file.
    """
    articles = "".join(_article(column, file, len(columns) > 1) for column in columns)
    return f'<div class="columns">{articles}</div>{_legend()}'


def message(text: str) -> str:
    """Render an error or warning."""
    return f'<p class="message" role="alert">{escape(text)}</p>'


def waiting(text: str) -> str:
    """Render a line about the progress."""
    return f'<p class="waiting" role="status">{escape(text)}</p>'


def clock(seconds: float) -> str:
    """Format seconds as players do: minutes and seconds, with hours if there are any."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _article(column: Column, file: str, is_compared: bool) -> str:
    lines = "".join(map(_line, column.parts))
    if column.is_finished and not lines:
        lines = '<p class="nothing">No words were recognised.</p>'
    spoken = column.whole.language
    language = f' lang="{escape(spoken)}"' if spoken else ""
    links = "".join(_links(column, file, is_compared)) if column.is_finished else ""
    return (
        f'<article aria-busy="{str(not column.is_finished).lower()}">'
        f"<h2>{escape(column.model)}</h2>"
        f'<p class="facts">{"".join(f"<span>{escape(fact)}</span>" for fact in _facts(column))}</p>'
        f'<div class="lines"{language}>{lines}</div>'
        f'<p class="downloads">{links}</p></article>'
    )


def _facts(column: Column) -> Iterator[str]:
    language = column.whole.language
    if language is not None:
        yield LANGUAGE_NAMES.get(language, language)
    if column.is_finished:
        yield f"{clock(column.duration)} of audio"
        yield f"{_rounded(column.duration / max(column.spent, 1e-3))} × real time"
    else:
        done = column.parts[-1].words[-1].end if column.parts else 0.0
        yield f"recognising: {clock(done)} of {clock(column.duration)}"


def _rounded(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"


def _line(part: Transcript) -> str:
    start = part.words[0].start
    return (
        f'<p><span class="stamp" data-start="{start:.3f}">{clock(start)}</span>'
        f"<span>{_words(part.words)}</span></p>"
    )


def _words(words: Iterable[Word]) -> str:
    return " ".join(
        f'<span class="word {_level(word.confidence).style}" role="button" tabindex="0" '
        f'data-start="{word.start:.3f}" data-end="{word.end:.3f}" '
        f'title="{word.start:.2f} to {word.end:.2f} s, confidence {word.confidence:.0%}">'
        f"{escape(word.text)}</span>"
        for word in words
    )


def _level(confidence: float) -> Level:
    return next(level for level in LEVELS if confidence >= level.minimum)


def _links(column: Column, file: str, is_compared: bool) -> Iterator[str]:
    """Render links that contain the files themselves, so that the server writes none."""
    from espnet_mlma.decode.formats import FORMATS, Source

    source = Source(file, column.model)
    stem = PurePath(file).stem + (f".{column.model}" if is_compared else "")
    for name, mime_type in DOWNLOADS.items():
        kind = FORMATS[name]
        contents = base64.b64encode(kind.render(column.whole, source).encode()).decode()
        yield (
            f'<a download="{escape(stem + kind.suffix)}" '
            f'href="data:{mime_type};base64,{contents}">{name.upper()}</a>'
        )


def _legend() -> str:
    samples = "".join(
        f'<span><span class="word {level.style}">word</span> {escape(level.label)}</span>'
        for level in LEVELS
    )
    return (
        f'<p class="legend"><span>Confidence</span>{samples}</p>'
        '<p class="hint">Click a word, or move to it with Tab and press Enter, to hear it.</p>'
    )
