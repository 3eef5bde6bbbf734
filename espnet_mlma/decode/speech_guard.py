"""Find where a recording cannot hold speech, from its sound alone: in silence and steady sound.

A CTC model that was trained on speech only writes words for silence, noise and hum. Speech differs
from these in any language: syllables change the shape of the spectrum several times a second, while
the shape of steady noise, of a hum or of a held tone stays. Sources of the idea: long-term spectral
measures for voice activity detection (Ramirez et al., Speech Communication 42, 2004), and syllabic
modulation (Houtgast and Steeneken, JASA 77, 1985).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.decode.transcript import StreamUpdate, Word

_HOP, _WINDOW = 320, 512  # samples: 20 and 32 ms
_HOP_SECONDS = _HOP / SAMPLE_RATE
_BANDS = 12  # of equal width in mel, from _LOWEST to _HIGHEST Hz
_LOWEST, _HIGHEST = 100, 7600
# dBFS. Quieter frames are silent; a band's level is at least the second number.
_SILENT, _BAND_FLOOR = -75.0, -85.0
_SMOOTHED = 3  # frames averaged, so that the bands of steady noise vary less
_LAG = 4  # frames between two spectra that are compared
# dB, root mean square over the bands. Steady noise of any colour stays below 2.5.
_CHANGE = 3.0
# A stretch with this much context is speech if it has this many changed frames or, where few frames
# have sound, this share of them. The beginning of steady noise has fewer.
_CONTEXT_SECONDS = 0.5
_CHANGES, _SHARE = 7, 0.15
_PIECE = 3000 * _HOP  # samples that are transformed at once


class SpeechGuard:
    """Judge stretches of a recording whose samples arrive in pieces of any size.

    The guard keeps a few bytes for each frame since the last call of `forget`.
    """

    def __init__(self) -> None:
        self._samples = torch.zeros(0)  # not in a frame yet, or in the next frame too
        self._powers = torch.zeros(0, _BANDS, dtype=torch.float64)  # of the last frames
        # For each comparison of two spectra: whether both have sound, and whether they differ.
        self._audible = torch.zeros(0, dtype=torch.bool)
        self._changed = torch.zeros(0, dtype=torch.bool)
        self._first = 0  # index of the first comparison that is kept
        self._is_over = False

    @classmethod
    def of(cls, samples: np.ndarray) -> SpeechGuard:
        """Make a guard of a whole recording (time,), floats in [-1, 1] at 16 kHz."""
        guard = cls()
        guard.push(samples)
        guard.finish()
        return guard

    def push(self, samples: np.ndarray) -> None:
        """Add the next samples (time,), floats in [-1, 1] at 16 kHz."""
        self._samples = torch.cat([self._samples, torch.from_numpy(samples).to(self._samples)])
        whole = max(0, (len(self._samples) - _WINDOW) // _HOP + 1) * _HOP
        for start in range(0, whole, _PIECE):
            end = min(start + _PIECE, whole)
            self._compare(_band_powers(self._samples[start : end + _WINDOW - _HOP]))
        self._samples = self._samples[whole:].clone()

    def finish(self) -> None:
        """Mark the end of the recording."""
        self._is_over = True

    def through(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Add blocks of samples as they pass, and mark the end after the last."""
        for block in blocks:
            self.push(block)
            yield block
        self.finish()

    def has_speech(self, start: float, end: float) -> bool | None:
        """Return whether a stretch, such as a word, can be speech.

        Args:
            start, end: seconds from the beginning of the recording.

        Returns:
            None: unknown until the next half second has arrived.
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
        return changes >= max(1, min(_CHANGES, _SHARE * int(self._audible[around].sum())))

    def forget(self, before: float) -> None:
        """Drop what only stretches that begin before this time need, in seconds."""
        drop = math.floor((before - 2 * _CONTEXT_SECONDS) / _HOP_SECONDS) - self._first
        drop = min(drop, len(self._changed))
        if drop > 0:
            self._audible, self._changed = (
                self._audible[drop:].clone(),
                self._changed[drop:].clone(),
            )
            self._first += drop

    def _compare(self, powers: Tensor) -> None:
        """Compare the next frames' powers (frames, bands) with those before."""
        powers = torch.cat([self._powers, powers])
        self._powers = powers[max(0, len(powers) - _LAG - _SMOOTHED + 1) :]
        if len(powers) < _LAG + _SMOOTHED:
            return
        smooth = powers.unfold(0, _SMOOTHED, 1).mean(-1)
        has_sound = smooth.sum(1) > 10 ** (_SILENT / 10)
        shape = 10 * torch.log10(smooth + 10 ** (_BAND_FLOOR / 10))
        shape -= shape.mean(1, keepdim=True)
        distance = (shape[_LAG:] - shape[:-_LAG]).square().mean(1).sqrt()
        audible = has_sound[_LAG:] & has_sound[:-_LAG]
        self._audible = torch.cat([self._audible, audible])
        self._changed = torch.cat([self._changed, audible & (distance > _CHANGE)])


class WordGuard:
    """Hold back a stream's words until it is known whether they can be speech; drop the others.

    In the middle of speech nothing is held back: the sound before a word decides.

    Args:
        is_on: whether words are dropped; if not, all pass at once.
    """

    def __init__(self, is_on: bool = True) -> None:
        self._is_on = is_on
        self._guard = SpeechGuard()
        self._held: list[Word] = []

    def push(self, samples: np.ndarray) -> None:
        """Add the next samples, as for `SpeechGuard.push`."""
        if self._is_on:
            self._guard.push(samples)

    def finish(self) -> None:
        """Mark the end of the stream: no word is held back any longer."""
        self._guard.finish()

    def filter(self, update: StreamUpdate, start: float) -> StreamUpdate:
        """Replace an update's words by the words that are now known to be possible speech.

        Args:
            update: the next words, and text that is not final.
            start: where that text begins, seconds; no later word begins before it.
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


def _weights() -> Tensor:
    """Return whether each bin of a spectrum is in each band, (bins, bands), 0 or 1."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    mel = torch.linspace(low, high, _BANDS + 1, dtype=torch.float64)
    edges = (700 * (10 ** (mel / 2595) - 1) * _WINDOW / SAMPLE_RATE).round()
    bins = torch.arange(_WINDOW // 2 + 1)[:, None]
    return ((bins >= edges[:-1]) & (bins < edges[1:])).float()


_TAPER = torch.hann_window(_WINDOW)
# Divided by this, the powers of all bins add up to the mean square of the samples.
_WEIGHTS = _weights() / (_WINDOW / 2 * _TAPER.square().sum())


def _band_powers(samples: Tensor) -> Tensor:
    """Return the mean square in each band of each frame, (frames, bands)."""
    spectrum = torch.view_as_real(torch.fft.rfft(samples.unfold(0, _WINDOW, _HOP) * _TAPER))
    return (spectrum.square().sum(-1) @ _WEIGHTS).double()
