"""Encode audio of any length: windows find the pauses, utterances between them are re-encoded."""

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

# Neighbouring windows overlap by this much.
_OVERLAP_SECONDS = 4.0
# This share at each end of the overlap is context only: emissions are poor at a window's ends.
_CONTEXT = 0.25
# Windows are joined where both have this much silence, if there is such a place.
_SILENCE_SECONDS = 0.4
# A piece ends at a pause of this length, or between words when it gets long.
_PAUSE_SECONDS = 0.3
_LONGEST_PIECE_SECONDS = 30.0
# Utterances in long audio are cut to this length, at their longest pauses or between words.
_STRETCH_SECONDS = 6.0
# An utterance is encoded with this much of the silence around it. In longer silence, or in silence
# unlike that of training, models write symbols that nobody spoke.
_MARGIN_SECONDS = 0.05


@dataclass(frozen=True)
class Piece:
    """Emissions of whole words.

    Attributes:
        first: its first frame, from the beginning of the audio.
        log_probs: (frames, vocabulary).
    """

    first: int
    log_probs: Tensor


@dataclass(frozen=True)
class _Draft:
    """Emissions of windows and their samples; at the end of the audio their lengths may differ."""

    first: int  # frame, from the beginning of the audio
    samples: np.ndarray
    log_probs: Tensor

    def split(self, frame: int, frame_samples: int) -> tuple[_Draft, _Draft]:
        """Split before a frame, counted from the draft's first."""
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
    """Encode audio of any length; memory does not grow with it.

    Audio no longer than an utterance is one piece. In longer audio overlapping windows find the
    pauses, and each utterance between pauses is encoded again by itself: models that were trained
    on utterances do worse on longer audio.

    Args:
        acoustic: the model.
        blocks: samples at 16 kHz, one after the other.
        batch_seconds: most audio encoded at once.

    Returns:
        Pieces without gaps between them, each of whole words of the best path.
    """
    windows = _windows(acoustic, blocks)
    longest = acoustic.utterance_seconds
    if longest is None:
        for draft in _drafts(acoustic, windows, batch_seconds):
            yield Piece(draft.first, draft.log_probs)
        return
    opening = list(islice(windows, 2))
    if len(opening) == 1:
        _, samples = opening[0]
        if len(samples) <= longest * SAMPLE_RATE:
            yield Piece(0, acoustic.emissions([samples])[0])
            return
    drafts = _drafts(acoustic, chain(opening, windows), batch_seconds)
    batch, seconds = [], 0.0
    for draft in drafts:
        batch.append(draft)
        seconds += len(draft.samples) / SAMPLE_RATE
        if seconds >= batch_seconds:
            yield from _reencoded(acoustic, batch, longest)
            batch, seconds = [], 0.0
    yield from _reencoded(acoustic, batch, longest)


def _reencoded(
    acoustic: AcousticModel, drafts: Sequence[_Draft], utterance_seconds: float
) -> Iterator[Piece]:
    """Cut drafts to utterances of at most `utterance_seconds` and encode each by itself."""
    step = acoustic.frame_samples
    stretches = [
        (draft, s) for draft in drafts for s in _stretches(acoustic, draft, utterance_seconds)
    ]
    sounds = [draft.samples[s.core.start * step : s.core.stop * step] for draft, s in stretches]
    emissions = iter(acoustic.emissions([sound for sound in sounds if len(sound)]))
    for (draft, stretch), sound in zip(stretches, sounds, strict=True):
        log_probs = draft.log_probs[stretch.start : stretch.end].clone()
        if len(sound):
            # An input layer may lose frames at the end, and very short sound is padded.
            core = next(emissions)[: stretch.core.stop - stretch.core.start]
            first = stretch.core.start - stretch.start
            log_probs[first : first + len(core)] = core
        yield Piece(draft.first + stretch.start, log_probs)


@dataclass(frozen=True)
class _Stretch:
    start: int  # frames of a draft
    end: int
    core: slice  # frames to encode again; empty: the windows' emissions stay


def _stretches(
    acoustic: AcousticModel, draft: _Draft, utterance_seconds: float
) -> Iterator[_Stretch]:
    """Cut a draft at its longest pauses until no stretch is long."""
    frames_per_second = SAMPLE_RATE / acoustic.frame_samples
    margin = round(_MARGIN_SECONDS * frames_per_second)
    utterance = int(utterance_seconds * frames_per_second) - 2 * margin
    longest = min(int(_STRETCH_SECONDS * frames_per_second), utterance)
    frames = len(draft.log_probs)
    path = best_path(draft.log_probs)
    if not path.token_ids:
        yield _Stretch(0, frames, slice(0, 0))
        return
    start, begin = 0, 0  # frame, symbol
    for last in [*_last_symbols(acoustic, path, longest), len(path.first) - 1]:
        is_end = last == len(path.first) - 1
        end = frames if is_end else (path.end[last] + path.first[last + 1]) // 2
        first, behind = path.first[begin], path.end[last]
        core = slice(max(start, first - margin), min(end, behind + margin))
        # Without a place to cut, the windows' emissions are better.
        yield _Stretch(start, end, core if behind - first <= utterance else slice(0, 0))
        start, begin = end, last + 1


def _last_symbols(acoustic: AcousticModel, path: Path, longest: int) -> list[int]:
    """Return the last symbol of each stretch except the last stretch, in order."""
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
    """Encode windows, join them and cut them at pauses."""
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
    """Yield overlapping windows, each with its first frame; the last one may be shorter."""
    frame = acoustic.frame_samples
    size = round(acoustic.window_seconds * SAMPLE_RATE) // frame * frame
    hop = size - round(_OVERLAP_SECONDS * SAMPLE_RATE) // frame * frame
    held, count, first = [], 0, 0
    # A block may be the whole audio. It is cut, so that little is concatenated below.
    for samples in (block[i : i + size] for block in blocks for i in range(0, len(block), size)):
        held.append(samples)
        count += len(samples)
        # Audio that fills a window exactly may be the last.
        while count > size:
            joined = np.concatenate(held)
            yield first, joined[:size]
            held, count, first = [joined[hop:]], count - hop, first + hop // frame
    if count:
        yield first, np.concatenate(held)


def _joined(
    acoustic: AcousticModel, windows: Iterator[tuple[int, np.ndarray]], batch_seconds: float
) -> Iterator[_Draft]:
    """Encode windows and join them to drafts without overlap, each about a window's hop long."""
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
    """Return the frame of the overlap at which the next window takes over.

    It is the frame whose surroundings are blank with the highest probability in both windows, so
    that no symbol is cut or written twice.

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
    """Yield frames to cut at, each counted from the previous cut."""
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
        middle = (before + after) // 2
        if after - before >= pause:
            yield middle - done
            done, boundary = middle, None
        elif texts[i].startswith(space) or texts[i - 1] == space:
            boundary = middle
    # Later symbols may belong to the last word, except after a long silence.
    written = path.end[-1] if texts else 0
    if len(log_probs) - written > longest:
        yield (written + len(log_probs)) // 2 - done
