"""Show progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ERASE_LINE = "\r\033[K"


@contextmanager
def notice(text: str) -> Iterator[None]:
    """Show a line on a terminal until the work is done."""
    is_shown = sys.stderr.isatty()
    if is_shown:
        print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_shown:
            print(_ERASE_LINE, end="", file=sys.stderr, flush=True)


class Progress:
    """A progress bar on the standard error, if that is a terminal.

    Call it with the seconds of audio that are done.

    Args:
        label: name of the work.
        total: seconds of audio; None: unknown.
        is_shown: whether to show the bar.
    """

    def __init__(self, label: str, total: float | None, is_shown: bool):
        from tqdm import tqdm

        self.seconds = 0.0
        self._bar = tqdm(
            desc=label,
            total=total,
            unit="s",
            bar_format="{desc}: {n:.0f} s {bar} {percentage:3.0f}% {elapsed}<{remaining}"
            if total
            else "{desc}: {n:.0f} s in {elapsed}",
            leave=False,
            disable=not (is_shown and sys.stderr.isatty()),
        )

    def __call__(self, seconds: float) -> None:
        self._bar.update(seconds - self.seconds)
        self.seconds = seconds

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()
