"""The store of the bench, which sleeps: a device of a given latency that does any number of writes at once.

It stands for a network disk or an array, whose latency does not grow with what is in flight. It keeps no bytes, only
which data was written last to each page, so that a replay can be checked.

Not here: a device with a bandwidth, a queue depth or caches. Figures of this store say what the method and its order
cost, not how fast any disk is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mirrortool import clock
from mirrortool.files import Buffer
from mirrortool.store.interface import WriteRun
from mirrortool.volume import VolumeSet


class SleepingStore:
    """Sleeps for each write; a PageWriter with a single volume at page 0.

    Attributes:
        volumes: the single volume.
        pages: the data that was written last to each page; None for zeros.
        calls: of `write` and `zero`.
    """

    def __init__(self, volumes: VolumeSet, latency_seconds: float) -> None:
        """Begin with pages that are all zeros."""
        self.volumes = volumes
        self.pages: list[Buffer | None] = [None] * sum(map(volumes.page_count, volumes))
        self.calls = 0
        self._latency_seconds = latency_seconds
        # _lock protects `calls`. `pages` has none: no two writes of one page run at once.
        self._lock = threading.Lock()

    def write(self, runs: Sequence[WriteRun]) -> None:
        """Sleep once, then note what was written: pages of one buffer each."""
        self._sleep()
        for page, buffers, _ in runs:
            self.pages[page : page + len(buffers)] = buffers

    def zero(self, page: int, count: int) -> None:
        """Sleep once, however many pages there are."""
        self._sleep()
        self.pages[page : page + count] = [None] * count

    def resize(self, name: str, size: int) -> None:
        """Give the volume another size; new pages are zeros."""
        self.volumes = self.volumes.resized(self.volumes[name], size)
        pages = sum(map(self.volumes.page_count, self.volumes))
        self.pages = (self.pages + [None] * pages)[:pages]

    def stop_sleeping(self) -> None:
        """Do writes without sleeping from now on, so that a cancelled measurement ends."""
        self._latency_seconds = 0

    def _sleep(self) -> None:
        with self._lock:
            self.calls += 1
        clock.sleep(self._latency_seconds)
