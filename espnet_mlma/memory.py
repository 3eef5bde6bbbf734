"""Memory that PyTorch frees on a CPU, kept for the next tensor."""

from __future__ import annotations

import ctypes
import functools
import os

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed, until the process ends.

    glibc gives every large block back to the system and fetches it anew, page by page, which on
    long audio and in training takes longer than the arithmetic (`benchmarks/encoder_cpu.py`). It
    is the whole process's malloc, so a program calls this, and the library does not by itself. What
    is free when the process forks is given back before: a child, such as a worker of a data loader,
    would hold all of it for as long as it lives.

    Returns:
        Whether there is a glibc that took it.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _LARGEST_INT),
        (_M_TOP_PAD, 64 * 2**20),
    )
    if not all(mallopt(name, value) for name, value in settings):
        return False
    _trim_before_forks()
    return True


@functools.cache  # once, however often a program asks
def _trim_before_forks() -> None:
    trim = ctypes.CDLL("libc.so.6").malloc_trim
    os.register_at_fork(before=lambda: trim(0))
