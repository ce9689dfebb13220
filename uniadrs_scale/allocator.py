"""How the C library keeps memory that a tile has freed, for the next tile."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of settings in glibc's `malloc.h`."""
MMAP_THRESHOLD = 32 << 20
"""Bytes: where glibc's own adjustment ends on 64 bit machines, and more than any one activation."""


@cache
def _is_glibc() -> bool:
    """Once a process: the answer is looked up in the interpreter's file."""
    return platform.libc_ver()[0] == "glibc"


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory, as glibc does when it is left alone; True if it will.

    Dask starts workers with ``MALLOC_TRIM_THRESHOLD_=65536``. That also switches glibc's own
    adjustment off, so that each activation of a tile comes from the kernel page by page and goes
    back: 15,000 page faults and a fifth of the time of a tile, more with every process beside it.
    The values are those that the adjustment reaches by itself. A page cache of our own was the
    alternative; torch allocates by malloc all the same.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        mallopt(M_TRIM_THRESHOLD, 2 * MMAP_THRESHOLD),
    ]
    return done == [1, 1]


def give_freed_memory_back() -> None:
    """Return to the system what is free, between two tasks: the next one is of another kind.

    What statistics left in pieces stood beside the first window otherwise: 60 MiB of 224 bands.
    """
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)
