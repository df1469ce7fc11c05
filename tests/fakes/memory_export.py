"""An export in memory that remembers what it was asked, and fails or waits when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mirrortool.change import Change
from tests.fakes.waiting import PATIENCE_SECONDS


class MemoryExport:
    """Attributes:
    data: its bytes.
    calls: what it was asked to change, flush or cache, in order: (name, arguments).
    before: called with the name of each call before it is done; may wait, or raise what the call is to raise.
    """

    def __init__(self, size: int = 1 << 20, name: str = "disk", **facts: Any) -> None:
        self.name = name
        self.data = bytearray(size)
        self.description = facts.get("description", "in memory")
        self.read_only = facts.get("read_only", False)
        self.page_size = facts.get("page_size", 4096)
        self.zeroes_fast = facts.get("zeroes_fast", True)
        self.calls: list[tuple[str, Any]] = []
        self.before: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        return len(self.data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.before("read")
        with self._lock:
            buffer[:] = self.data[offset : offset + len(buffer)]

    def change(self, changes: Sequence[Change]) -> None:
        self.before("change")
        with self._lock:
            self.calls.append(("change", changes))
            for offset, length, data, _ in changes:
                assert 0 < length <= self.size - offset
                assert data is None or len(data) == length
                self.data[offset : offset + length] = bytes(length) if data is None else data

    def flush(self) -> None:
        self.before("flush")
        self.calls.append(("flush", None))

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """Runs of 4 KiB, cut where the range is."""
        self.before("extents")
        end = offset + length
        while offset < end:
            size = min(end, offset - offset % 4096 + 4096) - offset
            yield size, not any(self.data[offset : offset + size])
            offset += size

    def cache(self, offset: int, length: int) -> None:
        self.before("cache")
        self.calls.append(("cache", (offset, length)))


class Gate:
    """Holds the export's next call of a kind until it is opened."""

    def __init__(self, export: MemoryExport, name: str) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()
        self._name = name
        export.before = self._wait

    def _wait(self, name: str) -> None:
        if name == self._name and not self.reached.is_set():
            self.reached.set()
            assert self._opened.wait(PATIENCE_SECONDS)

    def wait_reached(self) -> None:
        assert self.reached.wait(PATIENCE_SECONDS)

    def open(self) -> None:
        self._opened.set()


def failing(name: str, error: Exception) -> Callable[[str], None]:
    """For `before`: each call of this name fails."""

    def fail(called: str) -> None:
        if called == name:
            raise error

    return fail


def names(export: MemoryExport) -> list[str]:
    """Of the calls that the export had, in their order."""
    return [name for name, _ in export.calls]
