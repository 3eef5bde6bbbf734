"""Where a recording can hold speech, by its sound alone: what is steady or silent cannot.

A CTC model that has only heard speech writes words for silence, noise and hum. Speech differs from
those whatever the language: syllables change the shape of the spectrum several times a second,
while the shape of steady noise, of a hum or of a held tone stays. The same idea is behind long-term
spectral measures for voice activity detection (Ramirez et al., Speech Communication 42, 2004) and
syllabic modulation (Houtgast and Steeneken, JASA 77, 1985).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.transcript import Word

if TYPE_CHECKING:
    from espnet_mlma.decode.streaming import StreamUpdate

_HOP, _WINDOW = 320, 512  # samples: 20 and 32 ms
_HOP_SECONDS = _HOP / SAMPLE_RATE
_BANDS = 12  # of equal width in mel, from _LOWEST to _HIGHEST Hz
_LOWEST, _HIGHEST = 100, 7600
# dBFS. Below the first there is nothing to hear; a band's level counts from the second up.
_SILENT, _BAND_FLOOR = -75.0, -85.0
_SMOOTHED = 3  # frames averaged, so that the bands of steady noise hold still
_LAG = 4  # frames between two spectra that are compared
# dB, root mean square over the bands. Steady noise of any colour stays below 2.5.
_CHANGE = 3.0
# Around a word this much is looked at, and so many frames of change make it speech, or this share
# of the frames where there are few: the beginning of steady noise is no more than this.
_CONTEXT_SECONDS = 0.5
_CHANGES, _SHARE = 7, 0.15
_PIECE = 3000 * _HOP  # samples that are transformed at once


class SpeechGuard:
    """Judge stretches of a recording, of which samples arrive in pieces of any size.

    What is kept is a few bytes a frame, from `forget` on.
    """

    def __init__(self) -> None:
        self._samples = np.zeros(0, np.float32)  # not in a frame yet, or needed by the next
        self._powers = np.zeros((0, _BANDS))  # of the last frames
        # Of each comparison of two spectra, whether there was sound in both, and a change.
        self._heard = np.zeros(0, bool)
        self._changed = np.zeros(0, bool)
        self._first = 0  # comparison
        self._is_over = False

    @classmethod
    def of(cls, samples: np.ndarray) -> SpeechGuard:
        """Of a whole recording (time,), float in [-1, 1] at 16 kHz."""
        guard = cls()
        guard.push(samples)
        guard.finish()
        return guard

    def push(self, samples: np.ndarray) -> None:
        """Take the next samples (time,), float in [-1, 1] at 16 kHz."""
        self._samples = np.concatenate([self._samples, samples])
        whole = max(0, (len(self._samples) - _WINDOW) // _HOP + 1) * _HOP
        for start in range(0, whole, _PIECE):
            end = min(start + _PIECE, whole)
            self._compare(_band_powers(self._samples[start : end + _WINDOW - _HOP]))
        self._samples = self._samples[whole:].copy()

    def finish(self) -> None:
        """The recording is over."""
        self._is_over = True

    def through(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass blocks of samples on, and take each; the end of them is that of the recording."""
        for block in blocks:
            self.push(block)
            yield block
        self.finish()

    def has_speech(self, start: float, end: float) -> bool | None:
        """Whether a stretch, such as a word, can be speech.

        Args:
            start, end: seconds from the beginning of the recording.

        Returns:
            None: what comes within half a second decides it.
        """
        middle = (_LAG + _SMOOTHED - 1) / 2 * _HOP_SECONDS + _WINDOW / 2 / SAMPLE_RATE
        first = math.floor((start - _CONTEXT_SECONDS - middle) / _HOP_SECONDS) - self._first
        behind = math.ceil((end + _CONTEXT_SECONDS - middle) / _HOP_SECONDS) - self._first
        around = slice(max(0, first), max(0, behind))
        changes = int(self._changed[around].sum())
        if changes >= _CHANGES:
            return True
        if behind > len(self._changed) and not self._is_over:
            return None
        return changes >= max(1, min(_CHANGES, _SHARE * int(self._heard[around].sum())))

    def forget(self, before: float) -> None:
        """No stretch that begins earlier, in seconds, will be asked for."""
        drop = math.floor((before - 2 * _CONTEXT_SECONDS) / _HOP_SECONDS) - self._first
        drop = min(drop, len(self._changed))
        if drop > 0:
            self._heard, self._changed = self._heard[drop:].copy(), self._changed[drop:].copy()
            self._first += drop

    def _compare(self, powers: np.ndarray) -> None:
        """Take the next frames' powers (frames, bands)."""
        powers = np.concatenate([self._powers, powers])
        self._powers = powers[max(0, len(powers) - _LAG - _SMOOTHED + 1) :]
        count = len(powers) - _SMOOTHED + 1
        if count <= _LAG:
            return
        smooth = sum(powers[i : i + count] for i in range(_SMOOTHED)) / _SMOOTHED
        has_sound = smooth.sum(1) > 10 ** (_SILENT / 10)
        shape = 10 * np.log10(smooth + 10 ** (_BAND_FLOOR / 10))
        shape -= shape.mean(1, keepdims=True)
        distance = np.sqrt(np.mean((shape[_LAG:] - shape[:-_LAG]) ** 2, axis=1))
        heard = has_sound[_LAG:] & has_sound[:-_LAG]
        self._heard = np.concatenate([self._heard, heard])
        self._changed = np.concatenate([self._changed, heard & (distance > _CHANGE)])


class WordGuard:
    """Hold a stream's words until it is known whether they can be speech, and drop the others.

    In the middle of speech nothing is held: what was heard before a word decides.

    Args:
        is_on: whether words are dropped; if not they pass at once.
    """

    def __init__(self, is_on: bool = True) -> None:
        self._is_on = is_on
        self._guard = SpeechGuard()
        self._held: list[Word] = []

    def push(self, samples: np.ndarray) -> None:
        """Take the next samples, as `SpeechGuard.push`."""
        if self._is_on:
            self._guard.push(samples)

    def finish(self) -> None:
        """The stream is over: nothing is held any longer."""
        self._guard.finish()

    def judged(self, update: StreamUpdate, start: float) -> StreamUpdate:
        """Replace the words of an update by those that are now known to be possible speech.

        Args:
            update: the next words, and text that is not final.
            start: of that text, seconds; no word that comes later begins before it.
        """
        if not self._is_on:
            return update
        self._held += update.final
        final = []
        while self._held:
            verdict = self._guard.has_speech(self._held[0].start, self._held[0].end)
            if verdict is None:
                break
            word = self._held.pop(0)
            if verdict:
                final.append(word)
        self._guard.forget(self._held[0].start if self._held else start)
        is_shown = not self._held and self._guard.has_speech(start, start) is True
        return replace(update, final=tuple(final), partial=update.partial if is_shown else "")


def _weights() -> torch.Tensor:
    """The band of each bin of a spectrum, (bins, bands), 0 or 1 each."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    hertz = 700 * (10 ** (np.linspace(low, high, _BANDS + 1) / 2595) - 1)
    edges = np.round(hertz * _WINDOW / SAMPLE_RATE).astype(int)
    bins = np.arange(_WINDOW // 2 + 1)[:, None]
    return torch.from_numpy(((bins >= edges[:-1]) & (bins < edges[1:])).astype(np.float32))


_TAPER = torch.hann_window(_WINDOW)
# Divided by this, the powers of all bins add up to the mean square of the samples.
_WEIGHTS = _weights() / (_WINDOW / 2 * _TAPER.square().sum())


def _band_powers(samples: np.ndarray) -> np.ndarray:
    """Mean square in each band of each frame, (frames, bands)."""
    frames = torch.from_numpy(samples).unfold(0, _WINDOW, _HOP)
    spectrum = torch.view_as_real(torch.fft.rfft(frames * _TAPER))
    return (spectrum.square().sum(-1) @ _WEIGHTS).double().numpy()
