"""Axes of the plots on our pages: where values stand, and the round numbers written beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """From values to places.

    Attributes:
        ticks: values that are written there, rising; the first and the last are its ends.
        start, end: places of the two ends.
    """

    ticks: Sequence[float]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        share = (value - low) / (high - low or 1)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(values: Sequence[float], steps: int = 5) -> list[float]:
    """Evenly spaced round numbers, 0 among them, that reach as far as all values.

    Args:
        values: at least one.
        steps: how many at most, or one more on either side of 0.
    """
    low, high = min(0.0, *values), max(0.0, *values)
    high = high if high > low else 1.0
    rough = (high - low) / steps
    power = 10 ** math.floor(math.log10(rough))
    # A hair is no reason for another step: 0.1 * 3 is more than 0.3.
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, last + 1)]
