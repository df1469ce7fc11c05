"""The backings of a store together: synced at the same time, written past the page cache or through it, and closed.

Owned by a SpannedStore, and by what moves extents while no store is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mirrortool import files
from mirrortool.errors import InputOutputError, UnusableVolumeError
from mirrortool.files import ALIGNMENT
from mirrortool.store.backing import Backing
from mirrortool.store.backingformat import BACKINGS_MAX
from mirrortool.store.directio import Arenas, DirectFile
from mirrortool.store.interface import WriteRun
from mirrortool.store.syncgate import SyncGate
from mirrortool.wording import byte_count


class BackingSet:
    """One or more backings with extents of one size; by number.

    Attributes:
        gate: that of their syncs.
    """

    def __init__(self, backings: Sequence[Backing], gate: SyncGate) -> None:
        """Take them over."""
        assert 0 < len(backings) <= BACKINGS_MAX
        self._backings = tuple(backings)
        self.gate = gate
        self.extent_bytes = backings[0].header.extent_bytes
        self._arenas = Arenas()
        self._direct: list[DirectFile] = []  # by backing; empty while everything goes through the page cache

    def __iter__(self) -> Iterator[Backing]:
        return iter(self._backings)

    def __len__(self) -> int:
        return len(self._backings)

    def __getitem__(self, number: int) -> Backing:
        return self._backings[number]

    def read_from_device(self, *, makes_durable: bool) -> None:
        """Let what is read next be what the devices have, and no power cut can take; see backing.py."""
        if makes_durable:
            self.sync()
        self.drop_caches()

    def sync(self) -> None:
        """Make all data and records durable."""
        self._on_each(_sync)

    def sync_tables(self) -> None:
        """Make the records durable that were written since the last sync."""
        self._on_each(_sync_table)

    def drop_caches(self) -> None:
        """Let the next reads come from the devices."""
        for backing in self._backings:
            backing.drop_cache()

    def check_places(self) -> None:
        """
        Raises:
            InputOutputError: a file was deleted or replaced while it was written.
        """
        for backing in self._backings:
            if not backing.is_device and not backing.file.is_in_place():
                raise InputOutputError(
                    "it was deleted or replaced while it was written",
                    where=backing.path,
                    remedy="bring back what was there, then run replay again; without it, make a new mirror",
                )

    def short_of_space(self, wanted: int) -> set[int]:
        """The numbers of the files whose file system may not have as many bytes left."""
        return {
            number
            for number, backing in enumerate(self._backings)
            if not backing.is_device and files.free_bytes(backing.path) < wanted
        }

    def pwrite_runs(self, number: int, runs: Sequence[WriteRun], page_size: int) -> None:
        """Write runs to one of them; page 0 is the first of its first cell."""
        target = self._direct[number] if self._direct else self._backings[number].file
        target.pwrite_runs(runs, page_size, self._backings[number].header.data_offset)

    def find_why_not_direct(self, page_size: int) -> str | None:
        """Why they cannot be written past the page cache; None if they can."""
        if page_size % ALIGNMENT:
            return f"pages of {byte_count(page_size)} are not a multiple of {ALIGNMENT}"
        for backing in self._backings:
            direct = backing.file.reopen_direct()
            if direct is None:
                return f"{backing.path}: the file system or device does not take O_DIRECT"
            direct.close()
        return None

    def write_direct(self, wanted: bool, page_size: int) -> None:
        """Write past the page cache from now on, or no longer.

        Raises:
            UnusableVolumeError: they cannot be written so.
        """
        if wanted == bool(self._direct):
            return
        self._close_direct()
        if wanted:
            if why := self.find_why_not_direct(page_size):
                raise UnusableVolumeError(why, remedy="use --io buffered")
            for backing in self._backings:
                direct = backing.file.reopen_direct()
                assert direct is not None, "it was opened a moment ago"
                self._direct.append(DirectFile(direct, backing.file, self._arenas))

    def close(self) -> None:
        self._close_direct()
        for backing in self._backings:
            backing.close()

    def _close_direct(self) -> None:
        while self._direct:
            self._direct.pop().close()

    def _on_each(self, function: Callable[[Backing], None]) -> None:
        """Call it for all at the same time; every call has ended when this returns, or raises."""
        first, *others = self._backings
        if not others:
            function(first)
            return
        with ThreadPoolExecutor(len(others)) as pool:
            started = [pool.submit(function, backing) for backing in others]
            function(first)
            for each in started:
                each.result()


def _sync(backing: Backing) -> None:
    backing.sync()


def _sync_table(backing: Backing) -> None:
    backing.sync_table()
