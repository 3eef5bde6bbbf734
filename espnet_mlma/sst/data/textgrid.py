"""Read Praat's TextGrid files, long or short, as the Montreal Forced Aligner writes them.

praatio is not used here: it reads many truncated files without an error, and words get lost.
"""

from __future__ import annotations

import re
from pathlib import Path

from espnet_mlma.errors import MlmaError

# Values are quoted strings and free-standing numbers; field names and bracketed indices are not.
_VALUE = re.compile(r'"((?:[^"]|"")*)"|(?<![^\s])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![^\s])')
_SILENCES = {"", "sil", "sp", "<eps>", "<silence>"}

Interval = tuple[str, float, float]


def read_words(path: Path, tier: str = "words") -> list[Interval]:
    """Read the words of a TextGrid with start and end in seconds, without silences.

    Args:
        path: file in UTF-8 or UTF-16.
        tier: name of the tier, or the last word of its name, as in `speaker - words`.

    Raises:
        MlmaError: the file cannot be read, is damaged, or does not have exactly one such tier.
    """
    tiers = read_tiers(path)
    names = [name for name in tiers if name == tier or name.endswith(f" {tier}")]
    if len(names) != 1:
        raise MlmaError(f"{path}: {len(names)} tiers '{tier}' (found: {', '.join(tiers)})")
    return [interval for interval in tiers[names[0]] if interval[0].lower() not in _SILENCES]


def read_tiers(path: Path) -> dict[str, list[Interval]]:
    """Read the interval tiers of a TextGrid by name; see `read_words`."""
    values = _values(path)
    tiers: dict[str, list[Interval]] = {}
    try:
        if next(values) != "ooTextFile" or next(values) != "TextGrid":
            raise ValueError("no TextGrid header")
        _, _, count = [float(next(values)) for _ in range(3)]
        for _ in range(int(count)):
            kind, name, _, _, size = [next(values) for _ in range(5)]
            if kind == "IntervalTier":
                tiers[name] = [_interval(values) for _ in range(int(size))]
            else:
                for _ in range(2 * int(size)):
                    next(values)
    except (StopIteration, ValueError) as error:
        reason = str(error) or "ends too early"
        raise MlmaError(f"{path}: not a whole TextGrid ({reason}); export it again") from None
    return tiers


def _interval(values) -> Interval:
    start, end, text = float(next(values)), float(next(values)), next(values)
    if not 0 <= start <= end:
        raise ValueError(f"an interval from {start} to {end}")
    return " ".join(text.split()), start, end


def _values(path: Path):
    try:
        content = path.read_bytes()
        is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except OSError as error:
        raise MlmaError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise MlmaError(f"{path}: neither UTF-8 nor UTF-16 at byte {error.start}") from None
    for match in _VALUE.finditer(text):
        yield match[2] if match[1] is None else match[1].replace('""', '"')
