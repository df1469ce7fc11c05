"""Has the C library keep the memory of large buffers that come and go.

By default glibc maps each buffer of more than 128 KiB anew and gives it back when it is freed, at a page fault for
every 4 KiB: decompressing a megabyte then costs four times as much (410 instead of 90 µs, measured in a second thread).
"""

from __future__ import annotations

import contextlib
import functools

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_MMAP_BYTES = 32 << 20
_TRIM_BYTES = 64 << 20


@functools.cache
def keep_freed_memory() -> None:
    """Do so for the rest of the process (mallopt(3)); does nothing where there is no such call."""
    import ctypes  # loaded late: it costs 10 ms

    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        # Else each thread keeps memory of its own; the interpreter's lock lets only one allocate at a time anyway.
        mallopt(_M_ARENA_MAX, 1)
