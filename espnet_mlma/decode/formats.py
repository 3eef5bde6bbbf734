"""Render transcripts in the formats of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_mlma.decode.transcript import Transcript, Word

SCHEMA = "espnet-mlma/transcript/1"
# Close to the BBC Subtitle Guidelines and the Netflix Timed Text Style Guide.
PAUSE, LONGEST_CUE, SHORTEST_CUE = 600, 7000, 1000  # milliseconds
LINE_WIDTH = 42


@dataclass(frozen=True)
class Source:
    """The source of a transcript.

    Attributes:
        file: the audio, as the user named it.
        model: the recogniser's model, as the user named it.
    """

    file: str
    model: str


@dataclass(frozen=True)
class Cue:
    """A subtitle.

    Attributes:
        start, end: milliseconds from the beginning of the audio.
        lines: one or two.
    """

    start: int
    end: int
    lines: tuple[str, ...]


def cues(transcript: Transcript) -> list[Cue]:
    """Make subtitles of all words; they do not overlap.

    A cue ends at a pause of 0.6 s. If none comes within two lines of 42 characters and 7 s, it ends
    at the longest gap between words in the second half of those. It is shown for at least a second,
    unless the next cue or the end of the audio comes earlier.
    """
    groups = [part for phrase in _phrases(transcript.words) for part in _parts(phrase)]
    spans = _ordered((group[0].start, group[-1].end) for group in groups)
    next_starts = [start for start, _ in spans[1:]] + [_milliseconds(transcript.duration)]
    found = []
    for group, (start, end), limit in zip(groups, spans, next_starts, strict=False):
        end = min(max(end, min(start + SHORTEST_CUE, limit)), start + LONGEST_CUE)
        found.append(Cue(start, end, _lines(group)))
    return found


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _ordered(spans: Iterable[tuple[float, float]]) -> list[tuple[int, int]]:
    """Convert spans in seconds to milliseconds; none is empty, none overlaps the next."""
    ordered = []
    earliest = 0
    for start, end in spans:
        start = max(_milliseconds(start), earliest)
        earliest = max(_milliseconds(end), start + 1)
        ordered.append((start, earliest))
    return ordered


def _phrases(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Split words at pauses."""
    first = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or _gap(words, i) >= PAUSE:
            yield words[first:i]
            first = i


def _gap(words: Sequence[Word], i: int) -> int:
    """Return the milliseconds between word `i` and the one before it."""
    return _milliseconds(words[i].start) - _milliseconds(words[i - 1].end)


def _parts(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Split a phrase into pieces that fit into a cue."""
    while words:
        fitting = 1
        while fitting < len(words) and _fits(words[: fitting + 1]):
            fitting += 1
        if fitting < len(words):
            after_half = range((fitting + 1) // 2, fitting + 1)
            fitting = max(after_half, key=lambda i: (_gap(words, i), i))
        yield words[:fitting]
        words = words[fitting:]


def _fits(words: Sequence[Word]) -> bool:
    is_short = _milliseconds(words[-1].end) - _milliseconds(words[0].start) <= LONGEST_CUE
    return is_short and all(len(line) <= LINE_WIDTH for line in _lines(words))


def _lines(words: Sequence[Word]) -> tuple[str, ...]:
    """Set words as one line, or as two lines of similar length."""
    texts = [word.text for word in words]
    whole = " ".join(texts)
    if len(whole) <= LINE_WIDTH or len(texts) == 1:
        return (whole,)
    pairs = ((" ".join(texts[:i]), " ".join(texts[i:])) for i in range(1, len(texts)))
    return min(pairs, key=lambda pair: max(map(len, pair)))


def txt(transcript: Transcript, source: Source) -> str:
    """Render the words on one line."""
    return transcript.text + "\n"


def json_text(transcript: Transcript, source: Source) -> str:
    """Render a JSON object; its schema is `transcript.schema.json` beside this module."""
    content = {
        "schema": SCHEMA,
        "file": source.file,
        "model": source.model,
        "language": transcript.language,
        "duration": round(transcript.duration, 3),
        "score": round(transcript.score, 4),
        "text": transcript.text,
        "words": [
            {
                "text": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": round(word.confidence, 4),
            }
            for word in transcript.words
        ],
        "segments": [
            {"text": " ".join(cue.lines), "start": cue.start / 1000, "end": cue.end / 1000}
            for cue in cues(transcript)
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def srt(transcript: Transcript, source: Source) -> str:
    """Render SubRip subtitles."""
    blocks = (
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines)
        for number, cue in enumerate(cues(transcript), start=1)
    )
    return "".join(f"{block}\n\n" for block in blocks)


def vtt(transcript: Transcript, source: Source) -> str:
    """Render WebVTT subtitles. Source: https://www.w3.org/TR/webvtt1/."""
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        + "\n".join(cue.lines).translate(escapes)
        for cue in cues(transcript)
    )
    return "WEBVTT\n\n" + "".join(f"{block}\n\n" for block in blocks)


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def ctm(transcript: Transcript, source: Source) -> str:
    """Render NIST's time-marked words: recording, channel, start, duration, word, confidence.

    The recording is the file's name without folder and suffix; spaces, which the format does not
    allow, become underscores.
    """
    recording = "_".join(Path(source.file).stem.split())
    rows = (
        f"{recording} 1 {start / 1000:.3f} {(end - start) / 1000:.3f} "
        f"{word.text} {word.confidence:.4f}\n"
        for word in transcript.words
        for start, end in [(_milliseconds(word.start), _milliseconds(word.end))]
    )
    return "".join(rows)


def tsv(transcript: Transcript, source: Source) -> str:
    """Render a table of subtitles: start and end in milliseconds, text."""
    rows = (f"{cue.start}\t{cue.end}\t{' '.join(cue.lines)}\n" for cue in cues(transcript))
    return "start\tend\ttext\n" + "".join(rows)


def textgrid(transcript: Transcript, source: Source) -> str:
    """Render a Praat TextGrid with tiers of words and tokens; silence is an empty interval.

    Source: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html, long format.
    """
    tiers = {"words": transcript.words, "tokens": transcript.tokens}
    spans = {name: _ordered((i.start, i.end) for i in items) for name, items in tiers.items()}
    ends = [of_tier[-1][1] for of_tier in spans.values() if of_tier]
    end = max(_milliseconds(transcript.duration), 1, *ends)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end / 1000}", "tiers? <exists>", f"size = {len(tiers)}"]
    lines += ["item []:"]
    for number, (name, items) in enumerate(tiers.items(), start=1):
        intervals = list(_without_gaps(spans[name], [item.text for item in items], end))
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f'        name = "{name}"', "        xmin = 0", f"        xmax = {end / 1000}"]
        lines += [f"        intervals: size = {len(intervals)}"]
        for i, (first, last, text) in enumerate(intervals, start=1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{i}]:", f"            xmin = {first / 1000}"]
            lines += [f"            xmax = {last / 1000}", f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


def _without_gaps(
    spans: Sequence[tuple[int, int]], texts: Sequence[str], end: int
) -> Iterator[tuple[int, int, str]]:
    """Yield intervals that cover 0 to `end` without gaps, as a tier needs."""
    last = 0
    for (start, stop), text in zip(spans, texts, strict=True):
        if start > last:
            yield last, start, ""
        yield start, stop, text
        last = stop
    if end > last:
        yield last, end, ""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        suffix: of the file's name.
        render: makes the contents from a transcript and its source.
    """

    suffix: str
    render: Callable[[Transcript, Source], str]


FORMATS = {
    "txt": Format(".txt", txt),
    "json": Format(".json", json_text),
    "srt": Format(".srt", srt),
    "vtt": Format(".vtt", vtt),
    "ctm": Format(".ctm", ctm),
    "tsv": Format(".tsv", tsv),
    "textgrid": Format(".TextGrid", textgrid),
}
