"""Audio of any length as emissions: pauses found by overlapping windows, utterances by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.corpora.audio import SAMPLE_RATE
from espnet_mlma.decode.acoustic import AcousticModel
from espnet_mlma.decode.best_path import BLANK, Path, best_path
from espnet_mlma.decode.words import BPE_SPACE, CHAR_SPACE

# Of every window this much is seen by its neighbour too.
_OVERLAP_SECONDS = 6.0
# The outer quarters of the overlap are context: a window hears badly at its own ends.
_CONTEXT = 0.25
# A join wants this much silence around it, in both windows.
_SILENCE_SECONDS = 0.4
# A piece ends at a word after which this long nothing is written, and at a word when it is long.
_PAUSE_SECONDS = 0.6
_LONGEST_PIECE_SECONDS = 30.0
# Of the silence around an utterance this much is heard with it.
_MARGIN_SECONDS = 0.15


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
class _Window:
    first: int  # frame
    samples: np.ndarray
    is_last: bool


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
    if acoustic.utterance_seconds is None:
        yield from _drafts(acoustic, blocks, batch_seconds)
        return
    beginning, blocks = _beginning(blocks, round(acoustic.utterance_seconds * SAMPLE_RATE))
    if blocks is None:
        yield from (Piece(0, log_probs) for log_probs in acoustic.emissions(beginning))
        return
    tape = _Tape(acoustic.frame_samples)
    batch, seconds = [], 0.0
    for draft in _drafts(acoustic, tape.record(chain(beginning, blocks)), batch_seconds):
        samples = tape.play(len(draft.log_probs))
        batch.append((draft, samples))
        seconds += len(samples) / SAMPLE_RATE
        if seconds >= batch_seconds:
            yield from _encoded_anew(acoustic, batch)
            batch, seconds = [], 0.0
    yield from _encoded_anew(acoustic, batch)


def _beginning(
    blocks: Iterable[np.ndarray], longest: int
) -> tuple[list[np.ndarray], Iterator[np.ndarray] | None]:
    """The first samples as one array, and the blocks after it; None: it is all there is."""
    blocks = iter(blocks)
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        if len(held) > longest:
            return [held], blocks
    return [held] if len(held) else [], None


def _encoded_anew(
    acoustic: AcousticModel, batch: Sequence[tuple[Piece, np.ndarray]]
) -> Iterator[Piece]:
    """Drafts and their samples as pieces of the length of utterances, each encoded by itself."""
    stretches = [
        (draft, samples, stretch)
        for draft, samples in batch
        for stretch in _stretches(acoustic, draft.log_probs)
    ]
    step = acoustic.frame_samples
    emissions = acoustic.emissions(
        [samples[s.heard.start * step : s.heard.stop * step] for _, samples, s in stretches]
    )
    for (draft, _, stretch), anew in zip(stretches, emissions, strict=True):
        log_probs = draft.log_probs[stretch.start : stretch.end].clone()
        heard = log_probs[stretch.heard.start - stretch.start :][: len(anew)]
        heard[: len(anew)] = anew[: len(heard)]
        yield Piece(draft.first + stretch.start, log_probs)


@dataclass(frozen=True)
class _Stretch:
    start: int  # frames of a draft
    end: int
    heard: slice  # of them, those with speech


def _stretches(acoustic: AcousticModel, log_probs: Tensor) -> Iterator[_Stretch]:
    """A draft cut where its pauses are longest, until no stretch is longer than an utterance."""
    frames_per_second = SAMPLE_RATE / acoustic.frame_samples
    longest = round(acoustic.utterance_seconds * frames_per_second)
    margin = round(_MARGIN_SECONDS * frames_per_second)
    path = best_path(log_probs)
    start, begin = 0, 0  # frame, symbol
    for last in [*_last_symbols(acoustic, path, longest), len(path.first) - 1]:
        if last < begin:
            continue
        is_end = last == len(path.first) - 1
        end = len(log_probs) if is_end else (path.end[last] + path.first[last + 1]) // 2
        heard = slice(max(start, path.first[begin] - margin), min(end, path.end[last] + margin))
        yield _Stretch(start, end, heard)
        start, begin = end, last + 1


def _last_symbols(acoustic: AcousticModel, path: Path, longest: int) -> list[int]:
    """The last symbol of each stretch but the last one, in order."""
    texts = [acoustic.tokens[i] for i in path.token_ids]
    space = CHAR_SPACE if acoustic.token_type == "char" else BPE_SPACE
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


class _Tape:
    """Keeps the samples that have been heard and not yet asked for."""

    def __init__(self, frame_samples: int):
        self.frame_samples = frame_samples
        self.held = np.zeros(0, np.float32)

    def record(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self.held = np.concatenate([self.held, block])
            yield block

    def play(self, frames: int) -> np.ndarray:
        samples = frames * self.frame_samples
        played, self.held = self.held[:samples], self.held[samples:]
        return played


def _drafts(acoustic, blocks, batch_seconds) -> Iterator[Piece]:
    """Pieces as overlapping windows hear them."""
    waiting, first = None, 0
    for joined in _joined(acoustic, blocks, batch_seconds):
        waiting = joined if waiting is None else torch.cat([waiting, joined])
        for cut in _cuts(acoustic, waiting):
            yield Piece(first, waiting[:cut])
            waiting, first = waiting[cut:], first + cut
    if waiting is not None and len(waiting):
        yield Piece(first, waiting)


def _windows(acoustic: AcousticModel, blocks: Iterable[np.ndarray]) -> Iterator[_Window]:
    frame = acoustic.frame_samples
    size = round(acoustic.window_seconds * SAMPLE_RATE) // frame * frame
    hop = size - round(_OVERLAP_SECONDS * SAMPLE_RATE) // frame * frame
    held, first = np.zeros(0, np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        # One that fills a window exactly may be the last.
        while len(held) > size:
            yield _Window(first, held[:size], False)
            held, first = held[hop:], first + hop // frame
    if len(held):
        yield _Window(first, held, True)


def _joined(acoustic, blocks, batch_seconds) -> Iterator[Tensor]:
    """Emissions that follow one another, about a window's hop at a time."""
    windows = _windows(acoustic, blocks)
    at_once = max(1, int(batch_seconds // acoustic.window_seconds))
    previous, start = None, 0  # the last window's emissions from frame `start` on
    while batch := list(islice(windows, at_once)):
        emissions = acoustic.emissions([window.samples for window in batch])
        for window, current in zip(batch, emissions, strict=True):
            if previous is not None:
                cut = window.first + _join(acoustic, previous[window.first - start :], current)
                yield previous[: cut - start]
                current, start = current[cut - window.first :], cut
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
    space = CHAR_SPACE if acoustic.token_type == "char" else BPE_SPACE
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
