"""Check numbers of command lines, as types for argparse, of YAML and of data."""

from __future__ import annotations

import argparse
import math


def finite(text: str) -> float:
    """Convert to a finite number."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number


def positive(text: str) -> float:
    """Convert to a number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def not_negative(text: str) -> float:
    """Convert to a number from 0 on."""
    number = finite(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def is_positive(value: object) -> bool:
    """Return whether a YAML value is a number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def number_of(value: object) -> float | None:
    """Convert a number, or a text of one, to a finite float; None: the value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def positive_of(value: object) -> float | None:
    """Convert as `number_of` does; None too if the number is not above 0."""
    found = number_of(value)
    return found if found is not None and found > 0 else None


def natural(text: str) -> int:
    """Convert to a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def shard(text: str) -> tuple[int, int]:
    """Convert `I/N`, the I-th of N parts, to I and N."""
    number, _, of = text.partition("/")
    if number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return int(number), int(of)
    raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 2/4")


def share(text: str) -> float:
    """Convert to a number from 0 to 1."""
    number = finite(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return number
