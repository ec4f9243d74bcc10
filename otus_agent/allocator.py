"""The C library's allocator, told that batches of megabytes come and go.

By itself glibc gives each thread an arena of its own, keeps what bursts left behind in
all of them, and does so with ever larger blocks the more of them were freed. Other C
libraries have no such settings, and need none.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_TRIM_OCTETS = 1 << 20
# Larger blocks are the system's again as soon as they are free; copied batches are
# smaller, and fresh pages for each of them would cost more than the copy.
_MMAP_OCTETS = 512 << 10


def settle() -> None:
    """Makes memory that is free go back to the system. Call it before any thread starts."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        # What packets need is taken at the start: threads do not get into each other's way.
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_OCTETS)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_OCTETS)


def trim() -> None:
    """Gives back what is free between what is in use, as bursts leave it."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def release() -> None:
    """Gives the memory of something that has ended back to the system.

    A task is full of cycles, and little is allocated in Python between two of them:
    without this its megabytes would wait for a collection that does not come,
    and then stay in the allocator.
    """
    gc.collect()
    trim()
