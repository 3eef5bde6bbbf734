"""Find speech in a recording with Silero's voice activity detector.

Source: https://github.com/snakers4/silero-vad; the package brings the model with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.errors import MlmaError

# Samples in a frame of the detector, which carries its state from frame to frame.
_FRAME = 512
_FRAMES_PER_SECOND = SAMPLE_RATE / _FRAME
# Speech begins above the first probability and continues above the second, the detector's defaults.
_BEGIN, _CONTINUE = 0.5, 0.35
# Recognition needs a little silence around speech, and the pauses between words. A pause that ends
# a span is longer than two margins, so that spans never overlap.
_MARGIN = round(0.3 * _FRAMES_PER_SECOND)
_PAUSE = round(0.8 * _FRAMES_PER_SECOND)
_PIECE = round(1.0 * _FRAMES_PER_SECOND)


def speech_spans(blocks: Iterator[np.ndarray]) -> Iterator[tuple[float, Iterator[np.ndarray]]]:
    """Cut a recording into spans of speech; memory does not grow with its length.

    Read a span before the next one, as with `itertools.groupby`; unread pieces of it are skipped.

    Args:
        blocks: (samples,) float32 at 16 kHz, of any length, one after the other.

    Returns:
        For each span its start in seconds from the beginning of the recording, and its samples in
        pieces of at most about two seconds. Spans do not overlap.

    Raises:
        MlmaError: silero-vad is not installed.
    """
    pieces = _speech(_frames(blocks), _load_detector())
    spans = groupby(pieces, key=itemgetter(0))
    return ((start / SAMPLE_RATE, map(itemgetter(1), span)) for start, span in spans)


def _load_detector() -> Callable[[np.ndarray], float]:
    """Return a function from a frame to its probability of speech; it remembers earlier frames."""
    threads = torch.get_num_threads()
    try:
        import silero_vad
    except ImportError:
        raise MlmaError(
            'finding speech needs silero-vad; install it: pip install "espnet-mlma[vad]"'
        ) from None
    finally:
        torch.set_num_threads(threads)  # the import sets it to 1 for the whole process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates the way its model is loaded
        model = silero_vad.load_silero_vad()

    @torch.inference_mode()
    def probability(frame: np.ndarray) -> float:
        padded = np.pad(frame, (0, _FRAME - len(frame)))
        samples = torch.from_numpy(padded)
        # The package annotates another of the models that this function can return.
        return model(samples, SAMPLE_RATE).item()  # pyright: ignore[reportCallIssue]

    return probability


def _frames(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the samples in frames; the last frame may be shorter."""
    rest = np.empty(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // _FRAME * _FRAME
        yield from rest[:whole].reshape(-1, _FRAME)
        rest = rest[whole:]
    if len(rest):
        yield rest


def _speech(
    frames: Iterator[np.ndarray], probability: Callable[[np.ndarray], float]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield pieces of speech, each with the first sample of its span."""
    held: list[np.ndarray] = []  # read, and neither yielded nor dropped
    start: int | None = None  # of the current span
    quiet = position = 0
    for frame in frames:
        held.append(frame)
        position += len(frame)
        speech = probability(frame)
        if start is None:
            if speech < _BEGIN:
                held = held[-_MARGIN:]
                continue
            start = position - sum(map(len, held))
        quiet = 0 if speech >= _CONTINUE else quiet + 1
        if quiet > _PAUSE:
            end = len(held) - quiet + _MARGIN
            yield start, np.concatenate(held[:end])
            held, start = held[end:][-_MARGIN:], None
        elif quiet == 0 and len(held) >= _PIECE:
            yield start, np.concatenate(held)
            held = []
    if start is not None and held:
        yield start, np.concatenate(held[: len(held) - max(0, quiet - _MARGIN)])
