"""Compute fingerprints of audio, which survive coding, resampling and gain; read and write them.

A frame of 16 ms has a word of 24 bits: between each two neighbours of 25 bands, whether the
difference of their energies has grown within 128 ms. Frames that are silent or steady have no word.

Source: Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_mlma import files
from espnet_mlma.audio import SAMPLE_RATE
from espnet_mlma.errors import MlmaError

NO_WORD = np.uint32(1 << 31)  # of a silent or steady frame
BITS = 24
HOP = 256  # samples between frames
_WINDOW = 1024
_LOWEST, _HIGHEST = 200.0, 3400.0  # Hz; telephone bandwidth
_SMOOTHED = 8  # frames whose energies are added, so that a shift by half a frame changes few bits
_LAG = 8  # frames between the two compared
_CHUNK = 4096  # frames that are transformed at once
_SILENCE = 1e-8  # mean square of a frame, at full scale 1
_PAUSE = 1e-4  # energy of a frame relative to the loudest one
_STEADY = 0.02  # change of the band energies relative to their sum


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of several utterances.

    Attributes:
        ids: of the utterances.
        frames: number of frames of each.
        words: (sum of frames,) uint32, one after the other.
    """

    ids: list[str]
    frames: np.ndarray
    words: np.ndarray

    @classmethod
    def join(cls, found: Sequence[tuple[str, np.ndarray]]) -> Fingerprints:
        """Join the words of utterances; `found` has the id and the words of each."""
        words = [words for _, words in found]
        frames = np.array([len(of) for of in words], dtype=np.int64)
        return cls([id_ for id_, _ in found], frames, np.concatenate([_NOTHING, *words]))


# What numpy and zipfile raise on damaged files.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile)
_NOTHING = np.zeros(0, dtype=np.uint32)


def fingerprint(samples: np.ndarray) -> np.ndarray:
    """Compute the fingerprint of a sound.

    Args:
        samples: (samples,) at 16 kHz, full scale 1.

    Returns:
        (frames,) uint32, 62.5 a second; `NO_WORD` where a frame is silent or steady. Sounds of less
        than 0.32 s have no frames.
    """
    energies = _smoothed(_band_energies(samples))
    if len(energies) <= _LAG:
        return _NOTHING
    differences = energies[:, :-1] - energies[:, 1:]
    changes = differences[_LAG:] - differences[:-_LAG]
    octets = np.packbits(changes > 0, axis=1).astype(np.uint32)
    words = octets[:, 0] << 16 | octets[:, 1] << 8 | octets[:, 2]
    sums = energies.sum(1)
    sums = sums[_LAG:] + sums[:-_LAG]
    is_quiet = sums < max(2 * _SMOOTHED * _SILENCE * _FULL_SCALE, _PAUSE * sums.max())
    is_steady = np.abs(changes).sum(1) < _STEADY * sums
    return np.where(is_quiet | is_steady, NO_WORD, words)


def write(path: Path, found: Fingerprints) -> None:
    """Write fingerprints to a file, complete or not at all.

    Raises:
        MlmaError: the disk is full or not writable.
    """
    with files.whole(path) as new, open(new, "wb") as file:
        np.savez(file, ids=np.array(found.ids, np.str_), frames=found.frames, words=found.words)


def read(path: Path) -> Fingerprints:
    """Read a file of fingerprints.

    Raises:
        MlmaError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, frames, words = (file[name] for name in ("ids", "frames", "words"))
    except FileNotFoundError:
        raise MlmaError(f"{path}: no such file; run stage 3 again") from None
    except _DAMAGED as error:
        raise MlmaError(f"{path}: damaged ({error}); remove it and run stage 3 again") from None
    if words.dtype != np.uint32 or len(ids) != len(frames) or frames.sum() != len(words):
        raise MlmaError(f"{path}: damaged (its lengths differ); remove it and run stage 3 again")
    return Fingerprints(ids.tolist(), frames, words)


def _band_energies(samples: np.ndarray) -> np.ndarray:
    """Return the energies (frames, bands) of a sound's frames."""
    samples = np.asarray(samples, dtype=np.float32)
    if len(samples) < _WINDOW:
        return np.zeros((0, _BANDS.shape[1]), dtype=np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::HOP]
    parts = []
    for start in range(0, len(frames), _CHUNK):
        spectra = np.fft.rfft(frames[start : start + _CHUNK] * _TAPER)
        parts.append((spectra.real**2 + spectra.imag**2) @ _BANDS)
    return np.concatenate(parts)


def _smoothed(energies: np.ndarray) -> np.ndarray:
    if len(energies) < _SMOOTHED:
        return energies[:0]
    sums = np.cumsum(energies, axis=0, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    return sums[_SMOOTHED:] - sums[:-_SMOOTHED]


def _bands() -> np.ndarray:
    """Make the matrix (frequencies, bands) that sums a spectrum into bands of equal mel width."""
    frequencies = np.fft.rfftfreq(_WINDOW, 1 / SAMPLE_RATE)
    edges = np.linspace(_mel(_LOWEST), _mel(_HIGHEST), BITS + 2)
    band = np.searchsorted(edges, _mel(frequencies), side="right") - 1
    return (band[:, None] == np.arange(BITS + 1)).astype(np.float32)


def _mel(frequency: np.ndarray | float) -> np.ndarray:
    return np.log1p(np.asarray(frequency) / 700)


_TAPER = np.hanning(_WINDOW).astype(np.float32)
_BANDS = _bands()
_FULL_SCALE = float((_TAPER**2).sum()) * _WINDOW / 2  # energy of a frame of mean square 1
