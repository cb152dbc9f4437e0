"""Keep freed memory for the next step instead of handing it back to the system.

The C library returns every large block at once, so that each step has the system zero the same gigabyte of fresh pages again:
a third of a step of a small network on a processor (`benchmarks/allocator.py`).
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache

# glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


@cache
def keep_freed_memory() -> None:
    """From now on this process holds on to the most memory it has needed. Does nothing without glibc."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 64 << 20)
