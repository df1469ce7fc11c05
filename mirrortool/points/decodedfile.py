"""Payloads that were decompressed, in a file without a name: another page of one costs a read, not the whole of it.

The file is a ring: where it is full, the oldest give way. A payload goes there when it is decompressed for the second
time: who reads in order needs it once, and from memory.
Rule: nothing depends on it. What is read from it is compared with its sum, as all else is, so that a payload that was
overwritten while it was read is decompressed once more; and where it cannot be written, it is given up.
Bound: 1/_SHARE of what is free in its directory when it is made; ENTRIES_MAX payloads of SMALL_BYTES or more, as small
ones are decompressed in the time of a read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress

from mirrortool import files
from mirrortool.errors import HostError
from mirrortool.files import File

SMALL_BYTES = 32 << 10
ENTRIES_MAX = 1 << 18
_SHARE = 8
_SEEN_BYTES = 1 << 20


class DecodedFile:
    """Payloads by key; from any thread."""

    def __init__(self, directory: Callable[[], str], bytes_max: int | None = None) -> None:
        """Nothing is made yet.

        Args:
            directory: makes, at the first call, the one for temporary files.
            bytes_max: of the file; by default 1/_SHARE of what is free in its directory.
        """
        self._directory = directory
        self._bytes_max = bytes_max
        # _lock protects all that follows; it is held for a few statements, and while the file is made. The file is
        # read and written without it.
        self._lock = threading.Lock()
        self._file: File | None = None
        self._is_given_up = False
        self._end = 0  # where the next payload goes
        self._seen = bytearray(_SEEN_BYTES)  # by a hash of the key, whether it may have been decompressed before
        self._places: dict[Hashable, int] = {}
        self._oldest: deque[tuple[int, int, Hashable]] = deque()  # start, end and key of each, as they were added

    def close(self) -> None:
        """Give its space back."""
        self._give_up()

    def read(self, key: Hashable, at: int, views: Sequence[memoryview]) -> bool:
        """Fill buffers with the bytes of a payload from one on, if it is there; they may be those of another by now."""
        with self._lock:
            start, file = self._places.get(key), self._file
        if start is None or file is None:
            return False
        try:
            return file.pread_into(views, start + at) == sum(map(len, views))
        except (HostError, OSError):  # closed by now
            return False

    def add(self, key: Hashable, payload: bytes) -> None:
        """Keep a payload that was decompressed, if that was not the first time and there is room for such a one."""
        if len(payload) < SMALL_BYTES or self._is_first(key):
            return
        try:
            start = self._take(key, len(payload))
            if start is None or self._file is None:
                return
            self._file.pwrite(payload, start)
        except HostError:
            self._give_up()
            return
        with self._lock:
            if not self._is_given_up:
                self._places[key] = start

    def _is_first(self, key: Hashable) -> bool:
        place = hash(key) % _SEEN_BYTES
        is_first, self._seen[place] = not self._seen[place], 1
        return is_first

    def _take(self, key: Hashable, length: int) -> int | None:
        """A place for a payload, whose former ones are forgotten; None if there is none."""
        with self._lock:
            if self._is_given_up or key in self._places:
                return None
            if self._file is None:
                self._file = files.unnamed_file(self._directory())
                if self._bytes_max is None:
                    self._bytes_max = files.free_bytes(self._directory()) // _SHARE
            assert self._bytes_max is not None
            if length > self._bytes_max:
                return None
            if self._end + length > self._bytes_max:
                self._end = 0
            start, self._end = self._end, self._end + length
            while self._oldest and self._is_in_the_way(start):
                _, _, old = self._oldest.popleft()
                self._places.pop(old, None)
            self._oldest.append((start, self._end, key))
            return start

    def _is_in_the_way(self, start: int) -> bool:
        """Whether the oldest overlaps what was just taken, from `start` to _end, or is one too many."""
        first, end, _ = self._oldest[0]
        return (first < self._end and start < end) or len(self._oldest) >= ENTRIES_MAX

    def _give_up(self) -> None:
        with self._lock:
            self._is_given_up = True
            self._places.clear()
            self._oldest.clear()
            if self._file:
                with suppress(HostError):
                    self._file.close()
