"""A store over one or more backings, files or block devices of any size: any arrangement of drives (FIG. 5).

Volumes are divided into extents, and an extent gets a cell of some backing when it is first written. Where it has none,
it reads as zeros. Cells are given out and taken back by allocation.py; what the backings hold is in backingformat.py.

Order of a sync: the data, then the tables of the backings, each durable before the sync returns, and so before the sums
that stand for them.

Locks: none of its own; see allocation.py and backing.py. Reads take none: they look at the map, read, and read again
where cells became free meanwhile, as another extent may have got one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from mirrortool.errors import HostError, NoSpaceError
from mirrortool.files import Buffer
from mirrortool.store.allocation import CELL_BITS, CELL_MASK, FREED, Allocation, number_and_cell, write_claims
from mirrortool.store.backingset import BackingSet
from mirrortool.store.cellroom import CellRoom
from mirrortool.store.draining import Draining
from mirrortool.store.extentload import load_extents, refuse_damaged, zero_leftovers
from mirrortool.store.extentmap import NO_PLACE
from mirrortool.store.flat import RESERVE_MARGIN, clear_from, page_runs
from mirrortool.store.interface import WriteRun
from mirrortool.volume import Volume, VolumeSet


class SpannedStore:
    """Volumes over backings: mirrored storage (540) on any arrangement of drives."""

    def __init__(
        self,
        volumes: VolumeSet,
        backings: BackingSet,
        *,
        owner: str,
        write: bool,
        draining: Iterable[bytes] = (),
        is_partial: bool = False,
    ) -> None:
        """Take over the backings; to write, these are all that the mirror has.

        Args:
            owner: the mirror's directory, for errors.
            write: what a crash left is put right.
            draining: uuids of backings that get no extents any more.
            is_partial: the mirror has others, which are not there.
        Raises:
            ChangedOutsideError: to write: a table is damaged.
        """
        self.page_size = volumes.page_size
        self._volumes = volumes
        self._backings = backings
        self._may_write = write
        self._is_partial = is_partial
        self._extent_bytes = backings.extent_bytes
        self._extent_pages = backings.extent_bytes // self.page_size
        self._shift = self._extent_pages.bit_length() - 1
        backings.read_from_device(makes_durable=write)
        extents = load_extents(backings, volumes)
        if write:
            refuse_damaged(extents)
            zero_leftovers(backings, extents.leftovers)
        closed = set(draining)
        rooms = []
        for backing, free, leftovers in zip(backings, extents.free, extents.leftovers, strict=True):
            rooms.append(CellRoom(backing, free, is_closed=backing.header.uuid in closed))
            rooms[-1].add_free(leftovers)
        self._allocation = Allocation(backings, rooms, extents.places, extents.sequence, owner)
        self._get = extents.places.get

    @property
    def volumes(self) -> VolumeSet:
        return self._volumes

    def capacity(self, name: str) -> int | None:
        return None

    def find_why_not_direct(self) -> str | None:
        return self._backings.find_why_not_direct(self.page_size)

    def write_direct(self, wanted: bool) -> None:
        self._backings.write_direct(wanted, self.page_size)

    def write(self, runs: Sequence[WriteRun]) -> None:
        volume, _ = self._locate(runs[0][0])
        page, buffers, length = runs[-1]
        over = page * self.page_size - volume.start + length - volume.size
        if over > 0:
            assert over < self.page_size, "a write may only cut the last page"
            last = [*buffers[:-1], memoryview(buffers[-1])[:-over]]
            runs = [*runs[:-1], (page, last, length - over)]
        parts: list[list[WriteRun]] = [[] for _ in self._backings]
        self._place_runs(runs, parts)
        for number, part in enumerate(parts):
            if part:
                self._backings.pwrite_runs(number, part, self.page_size)

    def _place_runs(self, runs: Sequence[WriteRun], parts: list[list[WriteRun]]) -> None:
        """Runs of the address space as runs of each backing, whose first cell begins with page 0: the hot path."""
        shift, inside, page_size, extent_bytes = self._shift, self._extent_pages - 1, self.page_size, self._extent_bytes
        get, require, asks = self._get, self._allocation.require, self._allocation.has_parts
        for run in runs:
            page, buffers, length = run
            place = get(page >> shift)
            if place == NO_PLACE or place >= FREED or asks:
                place = require(page >> shift)
            inner = page & inside
            if inner * page_size + length > extent_bytes:
                self._place_long_run(run, parts)
                continue
            place -= 1  # number_and_cell, written out
            parts[place >> CELL_BITS].append((((place & CELL_MASK) << shift) + inner, buffers, length))

    def _place_long_run(self, run: WriteRun, parts: list[list[WriteRun]]) -> None:
        """The same for a run of several extents; it stays whole where these have cells that follow each other."""
        page, buffers, length = run
        extents = range(page >> self._shift, (page + (length - 1) // self.page_size >> self._shift) + 1)
        places = [self._allocation.require(extent) for extent in extents]
        skipped, begin, done = page - (extents[0] << self._shift), 0, 0
        for end in range(1, len(places) + 1):
            if end < len(places) and places[end] == places[end - 1] + 1:
                continue
            size = min(length - done, ((end - begin) * self._extent_pages - skipped) * self.page_size)
            number, cell = number_and_cell(places[begin])
            parts[number].append(((cell << self._shift) + skipped, _cut(buffers, done, size), size))
            skipped, begin, done = 0, end, done + size

    def zero(self, page: int, count: int) -> None:
        volume, start = self._locate(page)
        end = start + count * self.page_size
        if end >= volume.size:
            end += -end % self._extent_bytes  # what is after the volume's end is zeros already
        self._zero(volume, start, end)

    def _zero(self, volume: Volume, start: int, end: int) -> None:
        """Zero a volume's bytes from `start` to before `end`; whole extents lose their cells."""
        first_extent = volume.start // self._extent_bytes
        first, last = -(-start // self._extent_bytes), end // self._extent_bytes
        if first <= last:
            self._zero_part(first_extent + first - 1, start % self._extent_bytes, -start % self._extent_bytes)
            self._allocation.free(first_extent + first, first_extent + last)
            self._zero_part(first_extent + last, 0, end % self._extent_bytes)
        else:
            self._zero_part(first_extent + last, start % self._extent_bytes, end - start)

    def _zero_part(self, extent: int, start: int, length: int) -> None:
        if not length:
            return
        pages = range(-(-start // self.page_size), (start + length) // self.page_size)
        place = self._allocation.zero_part(extent, pages, self._extent_pages)
        if place != NO_PLACE:
            number, cell = number_and_cell(place)
            self._backings[number].file.punch(self._backings[number].offset_of(cell) + start, length)

    def resize(self, name: str, size: int) -> None:
        volume = self._volumes[name]
        # From the page that holds a smaller end on all becomes zeros; the journal brings that page again. What is after
        # the old end of a larger one may be there from a redo that was interrupted.
        kept = size - size % self.page_size if size < volume.size else volume.size
        self._zero(volume, kept, self._volumes.limit_of(volume))
        self._volumes = self._volumes.resized(volume, size)

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        volume, offset = self._locate(page)
        self._read(volume.start + offset, buffers)
        wanted = sum(map(len, buffers))
        if offset + wanted > volume.size:
            clear_from(buffers, max(0, volume.size - offset))

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        self._read(self._volumes[name].start + offset, [buffer])

    def _read(self, address: int, buffers: Sequence[memoryview]) -> None:
        while True:
            returned = self._allocation.returned
            self._read_once(address, buffers)
            if returned == self._allocation.returned:
                return

    def _read_once(self, address: int, buffers: Sequence[memoryview]) -> None:
        length, done = sum(map(len, buffers)), 0
        while done < length:
            extent, inner = divmod(address + done, self._extent_bytes)
            size = min(self._extent_bytes - inner, length - done)
            part = buffers if size == length else [memoryview(each) for each in _cut(buffers, done, size)]
            place = self._get(extent)
            got = 0
            if place != NO_PLACE and place < FREED:
                number, cell = number_and_cell(place)
                got = self._backings[number].file.pread_into(part, self._backings[number].offset_of(cell) + inner)
            if got < size:
                clear_from(part, got)
            done += size

    def data_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        if not count:
            return  # an empty volume has no page to begin at
        volume, offset = self._locate(page)
        end = min(volume.size, offset + count * self.page_size)
        first_page = volume.start // self.page_size
        for first, last in page_runs(self._data_extents(volume, offset, end), self.page_size):
            yield first_page + first, last - first

    def _data_extents(self, volume: Volume, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Offsets in the volume (first, one past the last) of what may not be zero, ascending."""
        extent_bytes, first_extent = self._extent_bytes, volume.start // self._extent_bytes
        for extent, place in self._allocation.places.each(
            first_extent + start // extent_bytes, first_extent - (-end // extent_bytes)
        ):
            if place >= FREED:
                continue
            number, cell = number_and_cell(place)
            backing, origin = self._backings[number], (extent - first_extent) * extent_bytes
            begin, stop = max(start, origin), min(end, origin + extent_bytes)
            cell_offset = backing.offset_of(cell) - origin
            for first, last in backing.file.data_extents(cell_offset + begin, cell_offset + stop):
                yield first - cell_offset, last - cell_offset

    def missing_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        if not self._is_partial:
            return
        done, end = page, page + count
        for extent, _ in self._allocation.places.each(page >> self._shift, (page + count - 1 >> self._shift) + 1):
            start = max(page, extent << self._shift)
            if done < start:
                yield done, start - done
            done = min(end, extent + 1 << self._shift)
        if done < end:
            yield done, end - done

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        runs, shift = list(runs), self._shift
        extents = (extent for page, count in runs for extent in range(page >> shift, (page + count - 1 >> shift) + 1))
        new = self._allocation.reserve(extents)
        low = self._backings.short_of_space(bytes_most + RESERVE_MARGIN)
        try:
            for page, count in runs if low else ():
                self._reserve_blocks(page, count, low)
        except NoSpaceError:
            self._allocation.give_back(new)
            raise

    def _reserve_blocks(self, page: int, count: int, low: set[int]) -> None:
        """Reserve the blocks of a run as far as it lies on the backings `low`."""
        address, end = page * self.page_size, (page + count) * self.page_size
        while address < end:
            extent, inner = divmod(address, self._extent_bytes)
            size = min(self._extent_bytes - inner, end - address)
            number, cell = number_and_cell(self._get(extent))
            if number in low:
                self._backings[number].file.reserve(self._backings[number].offset_of(cell) + inner, size)
            address += size

    @property
    def frees_late(self) -> bool:
        return True

    @property
    def frees_wait(self) -> bool:
        return self._allocation.frees_wait

    def begin_checkpoint(self) -> None:
        self._allocation.begin_checkpoint()

    def end_checkpoint(self) -> None:
        self._allocation.end_checkpoint()

    def sync(self) -> None:
        self._backings.gate.run(self._sync if self._may_write else self._backings.sync)

    def _sync(self) -> None:
        changes, chosen, are_durable = self._allocation.take_changes(), self._allocation.begin_topping(), False
        try:
            self._backings.sync()
            for number, records in self._allocation.records(changes):
                self._backings[number].write_records(records)
            for backing, runs in zip(self._backings, chosen, strict=True):
                write_claims(backing, runs)
            self._backings.sync_tables()
            self._backings.check_places()
            are_durable = True
        finally:
            self._allocation.end_topping(chosen, are_durable=are_durable)

    def draining(self, number: int) -> Draining:
        """What moves the extents of a backing to the others, while nothing else runs.

        Raises:
            NoSpaceError: they have no room for them; nothing was changed.
        """
        wanted, left = len(self._allocation.extents_on(number)), self._allocation.room_beside(number)
        if wanted > left:
            raise self._allocation.full(wanted, left)
        return Draining(self._backings, self._allocation, self.sync, number)

    def drop_caches(self) -> None:
        self._backings.drop_caches()

    def close(self) -> None:
        try:
            if self._may_write:
                with suppress(HostError):  # the next opening zeroes what is claimed
                    self._leave_clean()
        finally:
            self._backings.close()

    def _leave_clean(self) -> None:
        """The cells that were claimed and not used are free again, so that the next opening has less to do."""
        self._backings.gate.check()
        self._allocation.give_claims_up()
        self._backings.sync_tables()

    def _locate(self, page: int) -> tuple[Volume, int]:
        """The volume that a page is in, and its offset there in bytes."""
        volume = self._volumes.find(page)
        assert volume is not None, "checked where the operation was decoded"
        return volume, page * self.page_size - volume.start


def _cut(buffers: Sequence[Buffer], start: int, size: int) -> list[Buffer]:
    """The bytes `start … start+size-1` of buffers that follow each other."""
    found: list[Buffer] = []
    for buffer in buffers:
        if start < len(buffer) and size > 0:
            part = memoryview(buffer)[start : start + size]
            found.append(part)
            size -= len(part)
        start = max(0, start - len(buffer))
    return found
