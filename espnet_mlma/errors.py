"""Errors and warnings that the user can act on, each printed as one line."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from espnet_mlma import streams

BROKEN_PIPE = 141  # the shell's status of a program that SIGPIPE ended
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class MlmaError(Exception):
    """An error the user can mend; the message says what is wrong, where and what to do."""


class MlmaWarning(UserWarning):
    """A cause of worse results; the message says what is wrong, where and what to do."""


def show_warnings() -> None:
    """Print each `MlmaWarning` as one line on the standard error."""

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

    Ctrl-C exits with 130 and a broken pipe with 141, as in a shell. The standard streams are
    prepared, and each `MlmaWarning` is printed as one line.

    Args:
        main: the entry point; reads its own arguments.
        is_own: print an `OSError` about a file as one line too; false where `main` runs other
            people's programs, whose errors keep their traceback.

    Raises:
        SystemExit: the program failed.
    """
    streams.prepare()
    try:
        with warnings.catch_warnings():
            show_warnings()
            main()
    except MlmaError as error:
        # An error of a data loader's process comes at the end of a traceback.
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
    """Flush the standard output; fail if it cannot be written."""
    if lost := streams.settle():
        _fail_writing(lost)


def _fail_writing(error: OSError) -> NoReturn:
    """Exit because the standard output, or a file without a name, cannot be written.

    Raises:
        OSError: the error has another cause.
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
    """Escape line breaks, control characters and bytes that are not text."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
