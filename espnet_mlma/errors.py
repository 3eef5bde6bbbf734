"""The one exception of the package: something the user can mend."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from espnet_mlma import streams

BROKEN_PIPE = 141  # as a shell says of a program that died of SIGPIPE
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class MlmaError(Exception):
    """What is wrong, where (file and line, or utterance id), and what to do, in one line."""


class MlmaWarning(UserWarning):
    """What makes a result worse than it could be, where, and what to do, in one line."""


def show_warnings() -> None:
    """Have each `MlmaWarning` printed, as one line on the standard error."""

    def show(message, category, *place, **more) -> None:
        if issubclass(category, MlmaWarning):
            print(f"warning: {one_line(str(message))}", file=sys.stderr)
        else:
            others(message, category, *place, **more)

    others = warnings.showwarning
    warnings.showwarning = show
    warnings.simplefilter("always", MlmaWarning)


def run_cli(main: Callable[[], object], is_own: bool = True) -> None:
    """Run a command-line entry point; print an `MlmaError` as one line and exit with 1.

    Ctrl-C exits with 130, as the shell would have it, and a standard output that nobody reads any
    more with 141. Prepares the standard streams, and prints an `MlmaWarning` as one line.

    Args:
        main: the entry point; reads its own arguments.
        is_own: an `OSError` about a file is one line too; where `main` runs programs of others, it
            keeps its traceback.

    Raises:
        SystemExit: it did not end well.
    """
    streams.prepare()
    try:
        with warnings.catch_warnings():
            show_warnings()
            main()
    except MlmaError as error:
        # That of a data loader's process comes with its traceback, and at the end of that.
        _fail(str(error).rpartition(f"{__name__}.{MlmaError.__name__}: ")[2].rstrip())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except OSError as error:
        if is_own and error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}; look at the file and its permissions")
        is_of_stdout = not isinstance(error, BrokenPipeError) or streams.is_broken_pipe()
        if error.filename is not None or not is_of_stdout:
            raise
        _fail_writing(error)
    except SystemExit as end:
        if end.code:
            raise
        _finish()
        raise
    else:
        _finish()
    finally:
        streams.settle()


def _finish() -> None:
    """Write what the standard output still holds, or fail."""
    if lost := streams.settle():
        _fail_writing(lost)


def _fail_writing(error: OSError) -> NoReturn:
    """End because of an error of the standard output, or of a file without a name.

    Raises:
        OSError: it is about something else.
    """
    if isinstance(error, BrokenPipeError):
        raise SystemExit(BROKEN_PIPE) from None
    if error.errno in _NO_ROOM:
        _fail("cannot write the output: the disk is full; make room")
    if error.errno in (errno.EIO, errno.EBADF):
        _fail(f"cannot write the output: {error.strerror}; send it elsewhere")
    raise error


def _fail(text: str) -> NoReturn:
    """Print an error and exit with 1."""
    print(f"error: {one_line(text)}", file=sys.stderr)
    raise SystemExit(1) from None


def one_line(text: str) -> str:
    """A text, perhaps with a file's name in it, as one line that any terminal shows.

    Args:
        text: line breaks, control characters and bytes that are no text become escapes.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
