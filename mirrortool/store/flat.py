"""A store with one file or block device for each volume.

A volume is written through the page cache, or past it (directio.py); everything else goes through it.
A file is as long as its volume and sparse. A device may be longer than the volume; what is after the volume's end is
never touched.

A file is held by the lock that QEMU takes (OFD), a device by O_EXCL, of whoever opened them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mirrortool import files, hostinfo
from mirrortool.errors import InputOutputError, UnusableVolumeError
from mirrortool.files import ALIGNMENT, File
from mirrortool.store.directio import Arenas, DirectFile
from mirrortool.store.interface import WriteRun
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import Volume, VolumeSet
from mirrortool.wording import byte_count

RESERVE_MARGIN = 64 << 20
"""With this much space left beyond what is needed, reserving block by block would only cost time."""


class FlatStore:
    """The store of the images in a mirror's directory, and of volumes given by path."""

    def __init__(self, volumes: VolumeSet, opened: Mapping[str, File], *, must_stay: bool = False) -> None:
        """Take over the open files, one for each volume by name.

        Args:
            must_stay: a sync fails where a file was deleted or replaced since: what it has cannot be found any more.
        """
        self.page_size = volumes.page_size
        self._opened = dict(opened)
        self._is_device = {name: file.facts().identity.is_device for name, file in self._opened.items()}
        self._files = [file for name, file in self._opened.items() if not self._is_device[name]]
        self._gate = SyncGate()
        self._must_stay = self._files if must_stay else []
        self._arenas = Arenas()
        self._direct: dict[str, DirectFile] = {}  # by name; empty while everything goes through the page cache
        self._set_volumes(volumes)

    def find_why_not_direct(self) -> str | None:
        """Why the volumes cannot be written past the page cache; None if they can."""
        if self.page_size % ALIGNMENT:
            return f"pages of {byte_count(self.page_size)} are not a multiple of {ALIGNMENT}"
        for name, file in self._opened.items():
            direct = file.reopen_direct()
            if direct is None:
                return f"{file.path}, volume {name}: the file system or device does not take O_DIRECT"
            direct.close()
        return None

    def write_direct(self, wanted: bool) -> None:
        """Write past the page cache from now on, or no longer; while nothing is being written.

        Raises:
            UnusableVolumeError: the volumes cannot be written so.
        """
        if wanted == bool(self._direct):
            return
        self._close_direct()
        if wanted:
            if why := self.find_why_not_direct():
                raise UnusableVolumeError(why, remedy="use --io buffered")
            for name, file in self._opened.items():
                direct = file.reopen_direct()
                assert direct is not None, "it was opened a moment ago"
                self._direct[name] = DirectFile(direct, file, self._arenas)

    @property
    def volumes(self) -> VolumeSet:
        return self._volumes

    def capacity(self, name: str) -> int | None:
        """How large a volume can become, in bytes; None where only the file system limits it."""
        return self._opened[name].size() if self._is_device[name] else None

    def write(self, runs: Sequence[WriteRun]) -> None:
        volume, file, _ = self._locate(runs[0][0])
        page, buffers, length = runs[-1]
        over = page * self.page_size - volume.start + length - volume.size
        if over > 0:
            assert over < self.page_size, "a write may only cut the last page"
            last = [*buffers[:-1], memoryview(buffers[-1])[:-over]]
            runs = [*runs[:-1], (page, last, length - over)]
        target = self._direct.get(volume.name) or file
        target.pwrite_runs(runs, self.page_size, -volume.start)

    def zero(self, page: int, count: int) -> None:
        volume, file, offset = self._locate(page)
        file.punch(offset, min(count * self.page_size, volume.size - offset))

    def resize(self, name: str, size: int) -> None:
        volume = self._volumes[name]
        file = self._opened[name]
        # From the page that holds a smaller end on all becomes zeros; the journal brings that page again.
        kept = size - size % self.page_size if size < volume.size else volume.size
        if self._is_device[name]:
            file.punch(kept, max(size, volume.size) - kept)  # after the volume's end a device may hold anything
        else:
            file.truncate(kept)
            file.truncate(size)
        self._set_volumes(self._volumes.resized(volume, size))

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        volume, file, offset = self._locate(page)
        wanted = sum(map(len, buffers))
        got = file.pread_into(buffers, offset)
        if got < wanted or offset + wanted > volume.size:
            clear_from(buffers, max(0, min(got, volume.size - offset)))

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with a volume's bytes from `offset` on, all of them inside the volume."""
        file = self._opened[name]
        if file.pread_into([buffer], offset) < len(buffer):
            raise InputOutputError(
                f"volume {name} ends before it should", where=file.path, remedy="find out what truncated it"
            )

    def data_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        if not count:
            return  # an empty volume has no page to begin at
        volume, file, offset = self._locate(page)
        end = min(volume.size, offset + count * self.page_size)
        first_page = volume.start // self.page_size
        for first, last in page_runs(file.data_extents(offset, end), self.page_size):
            yield first_page + first, last - first

    def missing_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        return ()

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        for file in self._files:
            if files.free_bytes(file.path) < bytes_most + RESERVE_MARGIN:
                self._reserve_each(runs)
                return

    def sync(self) -> None:
        self._gate.run(self._sync)

    def _sync(self) -> None:
        for file in self._opened.values():
            file.fdatasync()
        self._check_places()

    @property
    def frees_late(self) -> bool:
        return False

    @property
    def frees_wait(self) -> bool:
        return False  # what is punched is free at once

    def begin_checkpoint(self) -> None:
        """Nothing: no page can come to the place of another."""

    def end_checkpoint(self) -> None:
        """Nothing, likewise."""

    def _check_places(self) -> None:
        for file in self._must_stay:
            if not file.is_in_place():
                raise InputOutputError(
                    "it was deleted or replaced while it was written",
                    where=file.path,
                    remedy="bring back what was there, then run replay again; without it, make a new mirror",
                )

    def drop_caches(self) -> None:
        for name, file in self._opened.items():
            if self._is_device[name]:
                hostinfo.flush_device_cache(file)
            file.drop_cache()

    def close(self) -> None:
        self._close_direct()
        for file in self._opened.values():
            file.close()

    def _close_direct(self) -> None:
        while self._direct:
            self._direct.popitem()[1].close()

    def _reserve_each(self, runs: Iterable[tuple[int, int]]) -> None:
        for page, count in runs:
            volume, file, offset = self._locate(page)
            if not self._is_device[volume.name]:
                file.reserve(offset, min(count * self.page_size, volume.size - offset))

    def _locate(self, page: int) -> tuple[Volume, File, int]:
        volume = self._volumes.find(page)
        assert volume is not None, "checked where the operation was decoded"
        return volume, self._opened[volume.name], page * self.page_size - volume.start

    def _set_volumes(self, volumes: VolumeSet) -> None:
        self._volumes = volumes


def page_runs(extents: Iterable[tuple[int, int]], page_size: int) -> Iterator[tuple[int, int]]:
    """Extents of bytes as runs of the pages that they touch (first, one past the last), merged where they meet."""
    begun: tuple[int, int] | None = None
    for start, end in extents:
        first, last = start // page_size, -(-end // page_size)
        if begun and first <= begun[1]:
            begun = (begun[0], max(begun[1], last))
            continue
        if begun:
            yield begun
        begun = (first, last)
    if begun:
        yield begun


def clear_from(buffers: Sequence[memoryview], start: int) -> None:
    """Zero everything from the byte `start` of the buffers on."""
    for buffer in buffers:
        if start < len(buffer):
            buffer[max(0, start) :] = bytes(len(buffer) - max(0, start))
        start -= len(buffer)
