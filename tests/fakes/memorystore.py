"""A store in memory that fails on demand, has little room, and forgets on a power cut what was not made durable."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field

from mirrortool.errors import HostError, InputOutputError, NoSpaceError, UnusableVolumeError
from mirrortool.store.interface import WriteRun
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import Volume, VolumeSet

WHERE = "memory"


@dataclass(slots=True)
class MemoryDisk:
    """What outlives a store: pages by number, as written and as durable; page_most of them have room."""

    pages: dict[int, bytes] = field(default_factory=dict)
    durable: dict[int, bytes] = field(default_factory=dict)
    page_most: int = 1 << 40

    def cut_power(self) -> None:
        """What was not durable is gone."""
        self.pages = dict(self.durable)


class MemoryStore:
    """Like a store of extents of one page: what is zeroed is usable again after a checkpoint that covers it.

    Attributes:
        failing: the error that each call of a method raises, by the method's name, until it is taken out.
        calls: of what is not about pages, in order.
    """

    def __init__(self, volumes: VolumeSet, disk: MemoryDisk) -> None:
        self.page_size = volumes.page_size
        self.failing: dict[str, HostError] = {}
        self.calls: list[str] = []
        self._volumes = volumes
        self._disk = disk
        self._gate = SyncGate()
        self._lock = threading.Lock()  # protects what follows, and the disk; held for one call
        self._freed = 0  # how many places of pages were freed since the last checkpoint was begun
        self._covered = 0  # those that the one which was begun covers
        self._reserved: set[int] = set()  # pages that have room, written or not

    @property
    def volumes(self) -> VolumeSet:
        return self._volumes

    def _call(self, name: str) -> None:
        if error := self.failing.get(name):
            raise type(error)(error.what, where=error.where, remedy=error.remedy)

    def capacity(self, name: str) -> int | None:
        assert name in self._volumes
        return None

    def find_why_not_direct(self) -> str | None:
        return "it is in memory"

    def write_direct(self, wanted: bool) -> None:
        if wanted:
            raise UnusableVolumeError("it is in memory", remedy="use --io buffered")

    def write(self, runs: Sequence[WriteRun]) -> None:
        self._call("write")
        volume, size = self._volume(runs[0][0]), self.page_size
        for page, buffers, length in runs:
            data = b"".join(buffers)
            assert len(data) == length
            for place in range(0, length, size):
                number = page + place // size
                kept = min(size, volume.size - (number * size - volume.start))
                assert kept > 0, "only the last page may be cut"
                self._put(number, data[place : place + kept])

    def _put(self, number: int, data: bytes) -> None:
        with self._lock:
            if self._used({number}) > self._disk.page_most:
                raise NoSpaceError("is full", where=WHERE)
            self._disk.pages[number] = data

    def _used(self, more: Set[int]) -> int:
        """Pages that have no room for others, with some more."""
        return len(self._disk.pages.keys() | self._reserved | more) + self._freed + self._covered

    def zero(self, page: int, count: int) -> None:
        self._call("zero")
        self._volume(page)
        self._free(number for number in list(self._disk.pages) if page <= number < page + count)

    def _free(self, numbers: Iterable[int]) -> None:
        with self._lock:
            for number in numbers:
                del self._disk.pages[number]
                if number not in self._reserved:
                    self._freed += 1

    def resize(self, name: str, size: int) -> None:
        self._call("resize")
        volume = self._volumes[name]
        kept = volume.start // self.page_size + min(size, volume.size) // self.page_size
        end = self._volumes.first_page(volume) + self._volumes.page_count(volume)
        if size < volume.size:
            self._free(number for number in list(self._disk.pages) if kept <= number < end)
        self._volumes = self._volumes.resized(volume, size)

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        self._call("read_into")
        self._volume(page)
        count = sum(map(len, buffers)) // self.page_size
        with self._lock:
            pages = [self._disk.pages.get(number, b"") for number in range(page, page + count)]
        data = b"".join(each.ljust(self.page_size, b"\0") for each in pages)
        for buffer in buffers:
            buffer[:], data = data[: len(buffer)], data[len(buffer) :]

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        volume = self._volumes[name]
        first, last = offset // self.page_size, -(-(offset + len(buffer)) // self.page_size)
        whole = memoryview(bytearray((last - first) * self.page_size))
        self.read_into(self._volumes.first_page(volume) + first, [whole])
        place = offset - first * self.page_size
        buffer[:] = whole[place : place + len(buffer)]

    def data_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        with self._lock:
            numbers = sorted(number for number in self._disk.pages if page <= number < page + count)
        return iter([(number, 1) for number in numbers])

    def missing_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        return ()

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        self._call("reserve")
        assert bytes_most >= 0
        with self._lock:
            pages = {number for page, count in runs for number in range(page, page + count)}
            if self._used(pages) > self._disk.page_most:
                raise NoSpaceError("is full", where=WHERE)
            self._reserved |= pages

    @property
    def frees_late(self) -> bool:
        return True

    @property
    def frees_wait(self) -> bool:
        return bool(self._freed or self._covered or self._reserved - self._disk.pages.keys())

    def begin_checkpoint(self) -> None:
        self.calls.append("begin")
        self._call("begin_checkpoint")
        with self._lock:
            self._covered += self._freed + len(self._reserved - self._disk.pages.keys())
            self._freed, self._reserved = 0, set()

    def end_checkpoint(self) -> None:
        self.calls.append("end")
        self._call("end_checkpoint")
        with self._lock:
            self._covered = 0

    def sync(self) -> None:
        self._gate.run(self._sync)

    def _sync(self) -> None:
        self.calls.append("sync")
        self._call("sync")
        with self._lock:
            self._disk.durable = dict(self._disk.pages)

    def drop_caches(self) -> None:
        self.calls.append("drop")

    def close(self) -> None:
        self.calls.append("close")

    def _volume(self, page: int) -> Volume:
        volume = self._volumes.find(page)
        assert volume is not None, "checked where the operation was decoded"
        return volume


def io_error() -> InputOutputError:
    """What a device gives that failed."""
    return InputOutputError("failed on demand", where=WHERE)
