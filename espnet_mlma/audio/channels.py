"""Mix channels to one: their mean, or the loudest channel if they cancel."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import numpy as np

from espnet_mlma.audio.readers import Piece
from espnet_mlma.errors import MlmaError, MlmaWarning

# Hz; excludes hum and offset, which may remain while the speech cancels.
_SPEECH_BAND = (200.0, 4000.0)
# The mean of n independent channels has 1/n of their mean energy. Less than half of that means that
# the channels are out of phase: two channels correlate below -0.5.
_LEAST_SHARE = 0.5


class Downmix:
    """Mix a whole recording alike: to the mean of its channels, or to one of them.

    Args:
        channels: number of channels -> the channel to use instead of the mean.
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
        """Choose the mix of a recording: the loudest channel if the mean loses most of the energy.

        Args:
            pieces: of the whole recording; a damaged one is used up to the damage.
        """
        energies: dict[int, np.ndarray] = {}
        for rate, samples in _until_error(pieces):
            count = samples.shape[1]
            if count > 1:
                known = energies.get(count, np.zeros(count + 1))
                energies[count] = known + _energies(rate, samples)
        chosen = {}
        for count, (*each, mean) in energies.items():
            # Relative to the energy of the mean of independent channels.
            if mean * count**2 < _LEAST_SHARE * sum(each):
                chosen[count] = int(np.argmax(each))
        return cls(chosen)

    def warn(self, name: str) -> None:
        """Warn if channels of the file `name` cancel."""
        for count, channel in self.channels.items():
            warnings.warn(
                f"{name}: {count} channels are out of phase and cancel; using channel "
                f"{channel + 1}, the loudest",
                MlmaWarning,
                stacklevel=2,
            )


def _until_error(pieces: Iterable[Piece]) -> Iterator[Piece]:
    try:
        yield from pieces
    except MlmaError:  # reading the samples raises it again
        return


def _energies(rate: int, samples: np.ndarray) -> np.ndarray:
    """Compute the energy in the speech band of each channel and of their mean."""
    both = np.concatenate([samples, samples.mean(axis=1, keepdims=True)], axis=1)
    with np.errstate(all="ignore"):  # NaN and Inf are an error in `check_level`
        spectrum = np.abs(np.fft.rfft(both.astype(np.float64), axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / rate)
    low, high = _SPEECH_BAND
    return spectrum[(hertz >= low) & (hertz <= high)].sum(axis=0)
