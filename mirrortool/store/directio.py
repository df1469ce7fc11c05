"""Writes past the page cache (O_DIRECT), from aligned memory.

Rule: whole pages of memory only. What is less, as the last page of a volume can be, goes through the page cache; so no
page of the cache is ever shared by both ways, and the kernel keeps them coherent: a direct write drops what is cached
of its pages.
Bound: as many arenas as tasks write at once, each of ARENA_BYTES; memory is taken as far as they were filled.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mirrortool import files
from mirrortool.errors import HostError
from mirrortool.files import ALIGNMENT, Buffer, File
from mirrortool.store.interface import WriteRun

ARENA_BYTES = 1 << 20


class Arenas:
    """Aligned buffers, used again and again; the latest first, as it is in the processor's caches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects _free; held for one operation of the list
        self._free: list[memoryview] = []

    @contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """One of them, until the end of the block."""
        with self._lock:
            arena = self._free.pop() if self._free else None
        if arena is None:
            arena = files.aligned_buffer(ARENA_BYTES)
        try:
            yield arena
        finally:
            with self._lock:
                self._free.append(arena)


class DirectFile:
    """A file or device that is written past the page cache; safe to use from several threads for different pages."""

    def __init__(self, direct: File, cached: File, arenas: Arenas) -> None:
        """Take over `direct`; `cached`, the same file, stays with the caller."""
        self._direct = direct
        self._cached = cached
        self._arenas = arenas

    def close(self) -> None:
        self._direct.close()

    def pwrite_runs(self, runs: Sequence[WriteRun], page_size: int, origin: int) -> None:
        """Write runs, each (page, buffers, bytes in all), to `origin` + page × page_size."""
        try:
            with self._arenas.borrow() as arena:
                if all(length == page_size for _, _, length in runs):
                    self._direct.pwrite_pages(runs, page_size, origin, arena[:page_size])
                    return
                for page, buffers, _ in runs:
                    self._write_run(arena, buffers, origin + page * page_size)
        except HostError as error:
            # The device has blocks larger than a page of memory, or cut a write short inside one.
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EINVAL:
                raise
            self._cached.pwrite_runs(runs, page_size, origin)

    def _write_run(self, arena: memoryview, buffers: Sequence[Buffer], offset: int) -> None:
        """Fill the arena as often as needed."""
        filled = 0
        for buffer in buffers:
            rest = memoryview(buffer)
            while rest:
                taken = min(len(rest), ARENA_BYTES - filled)
                arena[filled : filled + taken] = rest[:taken]
                rest = rest[taken:]
                filled += taken
                if filled == ARENA_BYTES:
                    self._direct.pwrite(arena, offset)
                    offset, filled = offset + filled, 0
        whole = filled - filled % ALIGNMENT
        if whole:
            self._direct.pwrite(arena[:whole], offset)
        if whole < filled:
            self._cached.pwrite(arena[whole:filled], offset + whole)
