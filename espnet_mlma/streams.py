"""Standard streams that a program can always write to: closed ones, and narrow encodings."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress

_closed: set[int] = set()  # descriptors of 0, 1, 2 that the program was started without


def prepare() -> None:
    """Make the standard streams safe; a program calls it once, before its work.

    - A stream that is closed becomes the null device, so that no file opened later gets its
      descriptor, and with it what libraries print.
    - A letter that the standard output's encoding lacks is replaced.
    - Writing to the standard error never raises: a full disk behind it must not lose the output.

    Streams that a caller has put in place of the process's own are left alone.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.add(descriptor)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)  # to be inherited, which what open() gives is not
            if null != descriptor:
                os.close(null)
    if sys.stdout is None:
        _closed.add(1)
        sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"), "utf-8", "replace")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _unfailing(sys.stderr)


class _Unfailing(io.TextIOWrapper):
    """A text stream that drops what cannot be written."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _unfailing(stream: io.TextIOWrapper | None) -> _Unfailing:
    """A stream to where the standard error goes, or to the null device."""
    # A file of its own: whoever holds the old stream may still write to it.
    raw = io.FileIO(os.devnull if stream is None else 2, "w", closefd=stream is None)
    encoding = "utf-8" if stream is None else stream.encoding
    return _Unfailing(raw, encoding, "backslashreplace", write_through=True)


def has_stdout() -> bool:
    """Whether the program was started with a standard output."""
    return 1 not in _closed


def has_stdin() -> bool:
    """Whether the program was started with a standard input."""
    return sys.stdin is not None and 0 not in _closed


def is_broken_pipe() -> bool:
    """Whether the reader of the standard output is gone."""
    try:
        poll = select.poll()
        poll.register(sys.stdout, select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # a stream without a descriptor
        return False


def settle() -> OSError | None:
    """Write what the standard output still holds.

    Returns:
        Why it cannot be written; it is dropped then, or Python would try again at its end.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        return error
    return None
