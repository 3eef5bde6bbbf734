"""Sound for untrained models, which the guard of decoding takes for speech as it does not noise."""

import numpy as np


def babble(samples: int, seed: int = 0) -> np.ndarray:
    """(samples,) float32 noise at 16 kHz, bright and dull by turns as consonants and vowels are."""
    noise = np.random.default_rng(seed).standard_normal(samples)
    dull = np.convolve(noise, np.full(16, 0.25))[:samples]
    is_dull = np.arange(samples) // 1920 % 2 == 1
    return (0.1 * np.where(is_dull, dull, noise)).astype(np.float32)
