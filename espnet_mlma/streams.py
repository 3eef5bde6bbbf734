"""Make the standard streams safe to write: closed ones, narrow encodings, full disks."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

_closed: set[int] = set()  # of the descriptors 0, 1, 2, those closed when the program started


def prepare() -> None:
    """Make the standard streams safe; a program calls this once, before its work.

    - A closed stream becomes the null device. Otherwise a file opened later would get its
      descriptor, and the prints of libraries.
    - Letters that the standard output's encoding lacks are replaced.
    - Writing to the standard error never raises, so that a full disk there does not stop the work.

    Streams that a caller has replaced stay as they are.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.add(descriptor)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)  # inherited by child processes, unlike the result of open()
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
    """A text stream that drops text it cannot write."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def _unfailing(stream: TextIO | None) -> _Unfailing:
    """Make a stream to the standard error's file, or to the null device."""
    # A new file object, because others may still write to the old stream.
    raw = io.FileIO(os.devnull if stream is None else 2, "w", closefd=stream is None)
    encoding = "utf-8" if stream is None else stream.encoding
    return _Unfailing(raw, encoding, "backslashreplace", write_through=True)


def has_stdout() -> bool:
    """Return whether the program was started with a standard output."""
    return 1 not in _closed


def has_stdin() -> bool:
    """Return whether the program was started with a standard input."""
    return sys.stdin is not None and 0 not in _closed


def is_broken_pipe() -> bool:
    """Return whether the standard output is a broken pipe."""
    try:
        poll = select.poll()
        poll.register(sys.stdout, select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # a stream without a descriptor
        return False


def settle() -> OSError | None:
    """Flush the standard output.

    Returns:
        The error if that fails; the text is then dropped, because Python would try again at exit.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        return error
    return None
