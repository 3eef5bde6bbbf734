"""Many channels to one: their mean, or the loudest where they cancel."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import numpy as np

from espnet_mlma.audio.readers import Piece
from espnet_mlma.errors import MlmaError, MlmaWarning

# Hz; a hum or an offset that channels share says nothing of the speech in them.
_SPEECH_BAND = (200.0, 4000.0)
# The mean of independent channels has 1 / channels of their mean energy. Less than half of that
# is left only where channels are out of phase: of two, where they correlate below -0.5.
_LEAST_SHARE = 0.5


class Downmix:
    """The mean of the channels, or one of them, for the whole of a recording.

    Args:
        channels: how many there are, and the one to take instead of the mean.
    """

    def __init__(self, channels: dict[int, int] | None = None):
        self.channels = channels or {}

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Mix (time, channels) to (time,) float32."""
        count = samples.shape[1]
        if count in self.channels:
            return samples[:, self.channels[count]].astype(np.float32)
        return samples.mean(axis=1, dtype=np.float32)

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Downmix:
        """Choose for a recording: the loudest channel where the mean loses most of the energy.

        Args:
            pieces: all of the recording; where it is damaged, up to there.
        """
        energies: dict[int, np.ndarray] = {}
        for rate, samples in _until_error(pieces):
            count = samples.shape[1]
            if count > 1:
                known = energies.get(count, np.zeros(count + 1))
                energies[count] = known + _energies(rate, samples)
        chosen = {}
        for count, (*each, mean) in energies.items():
            # As a fraction of the energy of the mean of independent channels.
            if mean * count**2 < _LEAST_SHARE * sum(each):
                chosen[count] = int(np.argmax(each))
        return cls(chosen)

    def warn(self, name: str) -> None:
        """Warn of channels that cancel in the file `name`."""
        for count, channel in self.channels.items():
            warnings.warn(
                f"{name}: its {count} channels are out of phase and cancel; only channel "
                f"{channel + 1}, the loudest, is taken",
                MlmaWarning,
                stacklevel=2,
            )


def _until_error(pieces: Iterable[Piece]) -> Iterator[Piece]:
    try:
        yield from pieces
    except MlmaError:  # it is raised again where the samples are read
        return


def _energies(rate: int, samples: np.ndarray) -> np.ndarray:
    """Energy in the band of speech, of each channel and of their mean."""
    both = np.concatenate([samples, samples.mean(axis=1, keepdims=True)], axis=1)
    with np.errstate(all="ignore"):  # of NaN and Inf, which `check_level` refuses
        spectrum = np.abs(np.fft.rfft(both.astype(np.float64), axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / rate)
    low, high = _SPEECH_BAND
    return spectrum[(hertz >= low) & (hertz <= high)].sum(axis=0)
