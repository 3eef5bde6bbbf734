"""Keep the memory that PyTorch frees on a CPU for the next tensor."""

from __future__ import annotations

import ctypes
import functools
import os

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory until the process ends.

    glibc returns every large block to the system and gets it again page by page. On long audio and
    in training that takes longer than the arithmetic (`benchmarks/encoder_cpu.py`). The setting
    holds for the whole process, so only programs call this, never the library. Free memory is
    returned before each fork. Otherwise a child, such as a data loader's worker, would hold it for
    its whole life.

    Returns:
        Whether glibc accepted the settings.
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
