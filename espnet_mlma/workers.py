"""Start worker processes that end with their parent, also when it is killed."""

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
from typing import Any

from espnet_mlma.errors import MlmaError

_PR_SET_PDEATHSIG = 1


@contextmanager
def pool(nj: int, does: str, option: str = "--nj", **options: Any) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of new processes that end with this one.

    Args:
        nj: number of processes.
        does: the work of a process, for the error, such as `formats audio`.
        option: with the number of processes, for the error.
        options: more options of `ProcessPoolExecutor`.

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
            f"a process that {does} was killed, perhaps because memory ran out; "
            f"re-run with a smaller {option}, which resumes"
        ) from None
    finally:
        workers.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this worker on Ctrl-C, which every process gets, and as soon as its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    kill_with_parent()

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()  # returns at once if it has ended already
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def kill_with_parent() -> None:
    """On Linux, kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        # A waiting thread is not enough: library code may hold the interpreter's lock.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
