"""Worker processes that end with their parent, also when it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process

from espnet_mlma.errors import MlmaError

_PR_SET_PDEATHSIG = 1


@contextmanager
def pool(nj: int, does: str, **options: object) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of new processes, which end with this one.

    Args:
        nj: processes.
        does: what one does, for the error, such as `formats audio`.
        options: further ones of `ProcessPoolExecutor`.

    Raises:
        MlmaError: a process was killed.
    """
    workers = ProcessPoolExecutor(
        nj, mp_context=get_context("spawn"), initializer=end_with_parent, **options
    )
    try:
        yield workers
    except BrokenProcessPool:
        raise MlmaError(
            f"a process that {does} was killed, perhaps for want of memory; "
            "give a smaller --nj: the same command goes on from here"
        ) from None
    finally:
        workers.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End a worker on Ctrl-C, which reaches every process, and as soon as its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    kill_with_parent()

    def watch() -> None:
        parent_process().join()  # also if it ended before this began
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def kill_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends; nothing elsewhere."""
    if sys.platform == "linux":
        # A thread that waits does not get the interpreter from library code that holds it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
