"""A store of stores: some volumes are in one, others in another, and together they are one address space.

Used only where a mirror keeps its volumes in more than one kind of storage.

Rule: a volume is in exactly one of them, and each call that is about pages is about those of one volume.
Rule: it is durable when all are: a sync of one that fails is a failure of the whole, for ever.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from mirrortool.errors import UnusableVolumeError
from mirrortool.store.interface import Store, WriteRun
from mirrortool.store.parallelread import readers_of
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import VolumeSet


class JoinedStore:
    """Stores of other volumes each, as one."""

    def __init__(self, stores: Sequence[Store]) -> None:
        """Take over the stores, which have pages of one size."""
        self._stores = tuple(stores)
        self._gate = SyncGate()
        self.page_size = stores[0].page_size
        self.readers = max(map(readers_of, stores))
        places = [(volume.start // self.page_size, store) for store in stores for volume in store.volumes]
        places.sort(key=lambda place: place[0])
        self._starts = [start for start, _ in places]  # a volume's first page does not change
        self._by_place = [store for _, store in places]
        self._note_volumes()

    def _note_volumes(self) -> None:
        self._volumes = VolumeSet([volume for store in self._stores for volume in store.volumes], self.page_size)

    @property
    def volumes(self) -> VolumeSet:
        return self._volumes

    def capacity(self, name: str) -> int | None:
        return self._having(name).capacity(name)

    def find_why_not_direct(self) -> str | None:
        return next((why for store in self._stores if (why := store.find_why_not_direct())), None)

    def write_direct(self, wanted: bool) -> None:
        if wanted and (why := self.find_why_not_direct()):  # before one of them is changed
            raise UnusableVolumeError(why, remedy="use --io buffered")
        for store in self._stores:
            store.write_direct(wanted)

    def write(self, runs: Sequence[WriteRun]) -> None:
        self._at(runs[0][0]).write(runs)

    def zero(self, page: int, count: int) -> None:
        self._at(page).zero(page, count)

    def resize(self, name: str, size: int) -> None:
        self._having(name).resize(name, size)
        self._note_volumes()

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        self._at(page).read_into(page, buffers)

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        self._having(name).read_bytes(name, offset, buffer)

    def data_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        return self._at(page).data_runs(page, count)

    def missing_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        return self._at(page).missing_runs(page, count)

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        runs = list(runs)
        for store in self._stores:
            share = [run for run in runs if self._at(run[0]) is store]
            if share:
                pages = sum(count for _, count in share)
                store.reserve(share, min(bytes_most, pages * self.page_size))

    @property
    def frees_late(self) -> bool:
        return any(store.frees_late for store in self._stores)

    @property
    def frees_wait(self) -> bool:
        return any(store.frees_wait for store in self._stores)

    def begin_checkpoint(self) -> None:
        for store in self._stores:
            store.begin_checkpoint()

    def end_checkpoint(self) -> None:
        for store in self._stores:
            store.end_checkpoint()

    def sync(self) -> None:
        self._gate.run(self._sync)

    def _sync(self) -> None:
        for store in self._stores:
            store.sync()

    def drop_caches(self) -> None:
        for store in self._stores:
            store.drop_caches()

    def close(self) -> None:
        with ExitStack() as closing:
            for store in reversed(self._stores):
                closing.callback(store.close)

    def _having(self, name: str) -> Store:
        return self._at(self._volumes.first_page(self._volumes[name]))

    def _at(self, page: int) -> Store:
        return self._by_place[bisect.bisect_right(self._starts, page) - 1]
