"""Draw random audio without speech, for which a recogniser must learn to output nothing.

Digital silence, coloured noise, hum, notes and clicks, alone or mixed, at any level. It is made by
NumPy, so that training needs no recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from espnet_mlma.audio import SAMPLE_RATE

_LOUDEST = 0.99
Layer = Callable[[np.random.Generator, int], np.ndarray]


def draw(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw one layer of non-speech, or a mix of two.

    Args:
        rng: source of the draws.
        samples: length at 16 kHz.

    Returns:
        (samples,) float32 in [-1, 1].
    """
    if not samples:
        return np.zeros(0, np.float32)
    layers: tuple[Layer, ...] = (silence, noise, hum, notes, clicks)
    sound = np.zeros(samples)
    for number in rng.choice(len(layers), rng.integers(1, 3), p=(0.15, 0.25, 0.15, 0.35, 0.1)):
        layer = layers[number](rng, samples)
        if rng.random() < 0.3:
            layer = layer * _gate(rng, samples)
        sound += layer
    if rng.random() < 0.2:
        sound += rng.choice((-1, 1)) * _gain(rng, -70, -10)  # DC offset
    return np.clip(sound, -_LOUDEST, _LOUDEST).astype(np.float32)


def background(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw what may surround an utterance in a recording: silence or steady noise.

    Arguments and result are those of `draw`.
    """
    if not samples:
        return np.zeros(0, np.float32)
    layer = (silence, partial(noise, loudest=-35), partial(hum, loudest=-35))
    return layer[rng.choice(3, p=(0.4, 0.5, 0.1))](rng, samples).astype(np.float32)


def silence(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw digital silence, or dither of the least significant bits."""
    if rng.random() < 0.5:
        return np.zeros(samples)
    return np.round(rng.normal(0, rng.uniform(0.2, 2), samples)) / 32768


def noise(rng: np.random.Generator, samples: int, loudest: float = -15) -> np.ndarray:
    """Draw noise of a random, possibly varying spectrum and level; -90 to `loudest` dBFS."""
    sound = _coloured(rng, samples)
    if rng.random() < 0.3:
        turn = _slow(rng, samples)
        sound = sound * np.sqrt(turn) + _coloured(rng, samples) * np.sqrt(1 - turn)
    if rng.random() < 0.4:
        sound = sound * 10 ** (rng.uniform(-30, 0) * _slow(rng, samples) / 20)
    return _gain(rng, -90, loudest) * sound


def hum(rng: np.random.Generator, samples: int, loudest: float = -15) -> np.ndarray:
    """Draw a steady tone with harmonics, as of mains or motors, usually with some noise."""
    base = rng.choice((50, 60, 100, 120, rng.uniform(30, 1000)))
    orders = np.arange(1, 1 + max(1, int(min(20, 7000 / base))))
    levels = rng.uniform(0, 1, len(orders)) * orders ** -rng.uniform(0, 2)
    time = np.arange(samples) / SAMPLE_RATE
    sound = np.zeros(samples)
    for order, level in zip(orders, levels, strict=True):
        sound += level * np.sin(2 * np.pi * (base * order * time + rng.random()))
    sound = _to_unit_level(sound)
    if rng.random() < 0.7:
        sound += _gain(rng, -40, -5) * _coloured(rng, samples)
    return _gain(rng, -85, loudest) * sound


def notes(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw chords, melodies and arpeggios of one instrument in one to four voices."""
    sound = np.zeros(samples)
    partials = rng.integers(1, 13)
    ratios = np.arange(1, partials + 1) * 1.0
    if rng.random() < 0.2:  # inharmonic, as of a bell
        ratios = np.sort(rng.uniform(1, 8, partials))
    levels = rng.uniform(0.1, 1, partials) * ratios ** -rng.uniform(0.3, 2)
    vibrato = rng.uniform(0.001, 0.01) if rng.random() < 0.3 else 0.0
    longest, rest = 10 ** rng.uniform(-0.8, 0.6), rng.choice((0.0, 0.3))
    beats = np.array([1.0] if rng.random() < 0.4 else [0.25, 0.5, 1.0])
    ring = rng.choice((1.0, 1.0, rng.uniform(1, 3)))  # a note may sound into the next ones
    for _ in range(rng.integers(1, 5)):
        steps = rng.integers(-7, 8, rng.choice((3, 4, 6, 8, 1000)))  # short patterns repeat
        pitches = 36 + abs((rng.integers(120) + np.cumsum(steps)) % 120 - 60)  # from 36 to 96
        start, number = 0, 0
        while start < samples:
            length = int(SAMPLE_RATE * longest * rng.choice(beats))
            if rng.random() >= rest:
                part = sound[start : start + int(ring * length)]
                pitch = int(pitches[number % len(pitches)])
                part += _note(rng, len(part), pitch, ratios, levels, vibrato)
            start, number = start + length, number + 1
    return _gain(rng, -55, -12) * _to_unit_level(sound)


def clicks(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw clicks, knocks and crackle: short decays at regular or random intervals."""
    sound = np.zeros(samples)
    period = SAMPLE_RATE * 10 ** rng.uniform(-1, 1)
    is_regular = rng.random() < 0.4
    decay = 10 ** rng.uniform(-4, -1.5)  # seconds
    rings = rng.random() < 0.5
    frequency = rng.uniform(200, 6000)
    time = np.arange(int(5 * decay * SAMPLE_RATE) + 1) / SAMPLE_RATE
    start = rng.uniform(0, period)
    while start < samples:
        burst = np.sin(2 * np.pi * frequency * time + 1) if rings else rng.normal(size=len(time))
        part = sound[int(start) : int(start) + len(time)]
        part += (rng.uniform(0.2, 1) * burst * np.exp(-time / decay))[: len(part)]
        start += max(1.0, period if is_regular else rng.exponential(period))
    return _gain(rng, -45, -3) * sound


def _note(
    rng: np.random.Generator,
    samples: int,
    pitch: int,
    ratios: np.ndarray,
    levels: np.ndarray,
    vibrato: float,
) -> np.ndarray:
    """Make one note of a MIDI pitch, with attack and release."""
    time = np.arange(samples) / SAMPLE_RATE
    base = 440 * 2 ** ((pitch - 69) / 12)
    cycles = base * time
    if vibrato:
        cycles += base * vibrato / 35 * np.cos(2 * np.pi * 5.5 * time)
    sound = np.zeros(samples)
    for ratio, level in zip(ratios, levels, strict=True):
        if ratio * base < 7500:
            sound += level * np.sin(2 * np.pi * (ratio * cycles + rng.random()))
    seconds = samples / SAMPLE_RATE
    attack, release = rng.uniform(0.002, 0.3, 2) * seconds + 1e-4
    envelope = np.minimum(1, np.minimum(time / attack, (seconds - time) / release))
    if rng.random() < 0.5:
        envelope *= np.exp(-time / (seconds * rng.uniform(0.2, 1)))
    return sound * envelope * rng.uniform(0.3, 1)


def _coloured(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw noise of unit level: a slope of 0 to -9 dB per octave, with peaks and dips."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20) / 20)
    slope = -rng.choice((0, 3, 6, rng.uniform(0, 9))) * octaves
    if rng.random() < 0.6:
        slope += np.interp(octaves, np.linspace(0, 8.7, 9), rng.normal(0, 8, 9))
    return _to_unit_level(np.fft.irfft(spectrum * 10 ** (slope / 20), samples))


def _slow(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw a curve between 0 and 1 with a turning point every 0.3 to 5 s."""
    points = 2 + int(samples / SAMPLE_RATE / rng.uniform(0.3, 5))
    return np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, points), rng.random(points))


def _gate(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Draw a gate that alternates between 0 and 1 every 0.05 to 3 s, with edges of 5 ms or none."""
    gate, start, value = np.zeros(samples), 0, rng.integers(2)
    while start < samples:
        length = int(SAMPLE_RATE * 10 ** rng.uniform(-1.3, 0.5))
        gate[start : start + length] = value
        start, value = start + length, 1 - value
    if rng.random() < 0.7:
        gate = np.convolve(gate, np.full(80, 1 / 80), mode="same")[:samples]
    return gate


def _gain(rng: np.random.Generator, quietest: float, loudest: float) -> float:
    return 10 ** (rng.uniform(quietest, loudest) / 20)


def _to_unit_level(sound: np.ndarray) -> np.ndarray:
    """Scale to a root mean square of 1; silence stays silence."""
    level = np.linalg.norm(sound) / np.sqrt(max(1, len(sound)))
    return sound / max(level, 1e-9)
