"""Audio of any length as emissions: windows find the pauses, utterances are heard by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.acoustic import AcousticModel
from espnet_mlma.decode.best_path import BLANK, Path, best_path
from espnet_mlma.decode.words import space_of

# Of every window this much is seen by its neighbour too.
_OVERLAP_SECONDS = 4.0
# The outer quarters of the overlap are context: a window hears badly at its own ends.
_CONTEXT = 0.25
# A join wants this much silence around it, in both windows.
_SILENCE_SECONDS = 0.4
# A piece ends at a word after which this long nothing is written, and at a word when it is long.
_PAUSE_SECONDS = 0.3
_LONGEST_PIECE_SECONDS = 30.0
# Utterances found in long audio are cut to this length at their longest pauses, or between words.
_STRETCH_SECONDS = 6.0
# Of the silence around an utterance this much is heard with it: in more of it, or in one of another
# kind than in training, models write symbols that nobody said.
_MARGIN_SECONDS = 0.05


@dataclass(frozen=True)
class Piece:
    """Some whole words' emissions.

    Attributes:
        first: its first frame, from the beginning of the audio.
        log_probs: (frames, vocabulary).
    """

    first: int
    log_probs: Tensor


@dataclass(frozen=True)
class _Draft:
    """Frames as windows hear them, with their samples; the last one's may be a few more or less."""

    first: int  # frame, from the beginning of the audio
    samples: np.ndarray
    log_probs: Tensor

    def split(self, frame: int, frame_samples: int) -> tuple[_Draft, _Draft]:
        """Before and from a frame on, counted from the draft's first."""
        sample = frame * frame_samples
        return (
            _Draft(self.first, self.samples[:sample], self.log_probs[:frame]),
            _Draft(self.first + frame, self.samples[sample:], self.log_probs[frame:]),
        )


def pieces(
    acoustic: AcousticModel,
    blocks: Iterable[np.ndarray],
    batch_seconds: float,
) -> Iterator[Piece]:
    """Encode audio of any length, with memory that does not grow with it.

    Audio of the length of an utterance is one piece. In longer audio overlapping windows find the
    pauses, and what lies between them is encoded anew by itself: a model hears an utterance as it
    heard those that it was trained on, and worse as part of something longer.

    Args:
        acoustic: the model.
        blocks: samples at 16 kHz, one after the other.
        batch_seconds: most audio encoded at once.

    Returns:
        Pieces that follow one another without gap, each of whole words as the best path has them.
    """
    windows = _windows(acoustic, blocks)
    if acoustic.utterance_seconds is None:
        for draft in _drafts(acoustic, windows, batch_seconds):
            yield Piece(draft.first, draft.log_probs)
        return
    opening = list(islice(windows, 2))
    if len(opening) == 1:
        _, samples = opening[0]
        if len(samples) <= acoustic.utterance_seconds * SAMPLE_RATE:
            yield Piece(0, acoustic.emissions([samples])[0])
            return
    drafts = _drafts(acoustic, chain(opening, windows), batch_seconds)
    batch, seconds = [], 0.0
    for draft in drafts:
        batch.append(draft)
        seconds += len(draft.samples) / SAMPLE_RATE
        if seconds >= batch_seconds:
            yield from _encoded_anew(acoustic, batch)
            batch, seconds = [], 0.0
    yield from _encoded_anew(acoustic, batch)


def _encoded_anew(acoustic: AcousticModel, drafts: Sequence[_Draft]) -> Iterator[Piece]:
    """Drafts as pieces of the length of utterances, each encoded by itself."""
    step = acoustic.frame_samples
    stretches = [(draft, s) for draft in drafts for s in _stretches(acoustic, draft)]
    emissions = iter(
        acoustic.emissions(
            [
                draft.samples[s.heard.start * step : s.heard.stop * step]
                for draft, s in stretches
                if s.heard is not None
            ]
        )
    )
    for draft, stretch in stretches:
        log_probs = draft.log_probs[stretch.start : stretch.end].clone()
        if stretch.heard is not None:
            # An input layer may lose frames at the end, and what is very short is filled up.
            anew = next(emissions)[: stretch.heard.stop - stretch.heard.start]
            first = stretch.heard.start - stretch.start
            log_probs[first : first + len(anew)] = anew
        yield Piece(draft.first + stretch.start, log_probs)


@dataclass(frozen=True)
class _Stretch:
    start: int  # frames of a draft
    end: int
    heard: slice | None  # of them, those to encode anew; None: what the windows heard stands


def _stretches(acoustic: AcousticModel, draft: _Draft) -> Iterator[_Stretch]:
    """A draft cut where its pauses are longest, until no stretch is long."""
    frames_per_second = SAMPLE_RATE / acoustic.frame_samples
    margin = round(_MARGIN_SECONDS * frames_per_second)
    utterance = int(acoustic.utterance_seconds * frames_per_second) - 2 * margin
    longest = min(int(_STRETCH_SECONDS * frames_per_second), utterance)
    frames = len(draft.log_probs)
    path = best_path(draft.log_probs)
    if not path.token_ids:
        yield _Stretch(0, frames, None)
        return
    start, begin = 0, 0  # frame, symbol
    for last in [*_last_symbols(acoustic, path, longest), len(path.first) - 1]:
        is_end = last == len(path.first) - 1
        end = frames if is_end else (path.end[last] + path.first[last + 1]) // 2
        first, behind = path.first[begin], path.end[last]
        heard = slice(max(start, first - margin), min(end, behind + margin))
        # What cannot be cut to the length of an utterance the windows have heard better.
        yield _Stretch(start, end, heard if behind - first <= utterance else None)
        start, begin = end, last + 1


def _last_symbols(acoustic: AcousticModel, path: Path, longest: int) -> list[int]:
    """The last symbol of each stretch but the last one, in order."""
    texts = [acoustic.tokens[i] for i in path.token_ids]
    space = space_of(acoustic.token_type)
    pause = _PAUSE_SECONDS * SAMPLE_RATE / acoustic.frame_samples

    def gap(i: int) -> int:
        return path.first[i + 1] - path.end[i]

    ends, todo = [], [(0, len(texts) - 1)]
    while todo:
        first, last = todo.pop()
        if last <= first or path.end[last] - path.first[first] <= longest:
            continue
        places = [
            i
            for i in range(first, last)
            if texts[i] == space or texts[i + 1].startswith(space) or gap(i) >= pause
        ]
        if places:
            place = max(places, key=lambda i: (gap(i), -abs(2 * i - first - last)))
            ends.append(place)
            todo += [(first, place), (place + 1, last)]
    return sorted(ends)


def _drafts(
    acoustic: AcousticModel, windows: Iterator[tuple[int, np.ndarray]], batch_seconds: float
) -> Iterator[_Draft]:
    """What windows hear, cut at pauses."""
    waiting = None
    for joined in _joined(acoustic, windows, batch_seconds):
        waiting = joined if waiting is None else _concatenated(waiting, joined)
        for cut in _cuts(acoustic, waiting.log_probs):
            draft, waiting = waiting.split(cut, acoustic.frame_samples)
            yield draft
    if waiting is not None and len(waiting.log_probs):
        yield waiting


def _concatenated(before: _Draft, after: _Draft) -> _Draft:
    samples = np.concatenate([before.samples, after.samples])
    return _Draft(before.first, samples, torch.cat([before.log_probs, after.log_probs]))


def _windows(
    acoustic: AcousticModel, blocks: Iterable[np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """Overlapping windows, each with its first frame; the last one may be shorter."""
    frame = acoustic.frame_samples
    size = round(acoustic.window_seconds * SAMPLE_RATE) // frame * frame
    hop = size - round(_OVERLAP_SECONDS * SAMPLE_RATE) // frame * frame
    held, count, first = [], 0, 0
    # A block may be all the audio: cut, so that what is joined below is never much.
    for samples in (block[i : i + size] for block in blocks for i in range(0, len(block), size)):
        held.append(samples)
        count += len(samples)
        # One that fills a window exactly may be the last.
        while count > size:
            joined = np.concatenate(held)
            yield first, joined[:size]
            held, count, first = [joined[hop:]], count - hop, first + hop // frame
    if count:
        yield first, np.concatenate(held)


def _joined(
    acoustic: AcousticModel, windows: Iterator[tuple[int, np.ndarray]], batch_seconds: float
) -> Iterator[_Draft]:
    """Windows as drafts that follow one another, about a window's hop each."""
    at_once = max(1, int(batch_seconds // acoustic.window_seconds))
    previous = None
    while batch := list(islice(windows, at_once)):
        emissions = acoustic.emissions([samples for _, samples in batch])
        for (first, samples), log_probs in zip(batch, emissions, strict=True):
            current = _Draft(first, samples, log_probs)
            if previous is not None:
                overlap = previous.log_probs[first - previous.first :]
                cut = first + _join(acoustic, overlap, log_probs)
                yield previous.split(cut - previous.first, acoustic.frame_samples)[0]
                current = current.split(cut - first, acoustic.frame_samples)[1]
            previous = current
    if previous is not None:
        yield previous


def _join(acoustic: AcousticModel, before: Tensor, after: Tensor) -> int:
    """The frame of the overlap at which one window gives over to the next.

    The one whose surroundings are blank with the highest probability in both: there neither can
    have written half of a symbol that the other writes a little later.

    Args:
        before, after: emissions of the two windows from the beginning of the overlap on.
    """
    overlap = min(len(before), len(after))
    margin = int(overlap * _CONTEXT)
    width = round(_SILENCE_SECONDS * SAMPLE_RATE / acoustic.frame_samples) | 1
    if overlap - 2 * margin < width:
        return overlap // 2
    blank = torch.minimum(before[:overlap, BLANK].exp(), after[:overlap, BLANK].exp())
    silence = blank[margin : overlap - margin].unfold(0, width, 1).float().mean(1)
    return margin + int(silence.argmax()) + width // 2


def _cuts(acoustic: AcousticModel, log_probs: Tensor) -> Iterator[int]:
    """Frames to cut at, each counted from the cut before it."""
    seconds = acoustic.frame_samples / SAMPLE_RATE
    longest, pause = _LONGEST_PIECE_SECONDS / seconds, _PAUSE_SECONDS / seconds
    path = best_path(log_probs)
    texts = [acoustic.tokens[i] for i in path.token_ids]
    space = space_of(acoustic.token_type)
    done, boundary = 0, None
    for i in range(1, len(texts)):
        before, after = path.end[i - 1], path.first[i]
        if after - done > longest:
            cut = boundary or before
            yield cut - done
            done, boundary = cut, None
        is_pause = after - before >= pause
        if is_pause or texts[i].startswith(space) or texts[i - 1] == space:
            boundary = (before + after) // 2
        if is_pause:
            yield boundary - done
            done, boundary = boundary, None
    # What comes may belong to the last word, unless it comes after a long silence.
    written = path.end[-1] if texts else 0
    if len(log_probs) - written > longest:
        yield (written + len(log_probs)) // 2 - done
