"""The sums of all pages as of the newest frame: changes in memory, over the table on disk, which is as of the last
checkpoint.

Rule: sums are applied to the table only after the volumes hold their pages durably. So a page that recovery finds on a
volume has the sum that the table gives it, or one that the journal gave it since; any other was written by another
process.

    changed     since the newest checkpoint was begun
    applying    what that checkpoint brings into the table
    blocks      the table itself, as much of it as was asked for; a cache
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from mirrortool.checksum import unpack_sums
from mirrortool.record.damagedsegments import SegmentCheck
from mirrortool.store.pagesums import PageSums

_BLOCK_SHIFT = 9
_BLOCK_PAGES = 1 << _BLOCK_SHIFT
_BLOCKS_MAX = 8192
"""Of 512 sums each: 32 MiB, the sums of 16 GiB in pages of 4 KiB."""
_SLICE_PAGES = 2048
"""This many sums are applied to the table at once; meanwhile a caller that asks for others waits."""


class CurrentSums:
    """The sums of all pages; used under the recorder's lock, except `apply`, which its write-back calls without it."""

    def __init__(self, table: PageSums) -> None:
        self.table = table
        self._changed: dict[int, int] = {}
        self._applying: dict[int, int] = {}
        self._blocks: dict[int, array[int]] = {}
        self._segments = SegmentCheck(table)
        self._is_torn = False  # whether `apply` is running, or failed: segments may not be those of their sums
        # _table_lock is held while the table's files are read or written, for one block or slice; always the last lock.
        self._table_lock = threading.Lock()

    @property
    def changed_pages(self) -> int:
        """How many sums wait for the next checkpoint."""
        return len(self._changed)

    def swap(self, pages: Sequence[int], sums: Sequence[int]) -> list[int]:
        """Give pages new sums, in order; returns the sum that each had.

        Raises:
            CorruptJournalError: the table is damaged; no sum has changed.
        """
        changed, applying, blocks = self._changed, self._applying, self._blocks
        old: list[int] = []
        try:
            for page, new in zip(pages, sums, strict=True):
                known = changed.get(page)
                if known is None:
                    known = applying.get(page)
                    if known is None:
                        block = blocks.get(page >> _BLOCK_SHIFT) or self._load(page)
                        known = block[page & _BLOCK_PAGES - 1]
                old.append(known)
                changed[page] = new
        except BaseException:
            self.restore(pages, old)
            raise
        return old

    def restore(self, pages: Sequence[int], old: Sequence[int]) -> None:
        """Undo a `swap`: the frame was not appended."""
        for index in range(len(old) - 1, -1, -1):
            self._changed[pages[index]] = old[index]

    def read(self, page: int, count: int) -> list[int]:
        """The sums of adjacent pages of one volume."""
        found: list[int] = []
        newer = self._applying, self._changed  # before the blocks: what is in neither by then is in these
        while len(found) < count:
            place = page + len(found)
            block = self._blocks.get(place >> _BLOCK_SHIFT) or self._load(place)
            first = place & _BLOCK_PAGES - 1
            found += block[first : first + count - len(found)]
        for sums in newer:
            for number in _members(sums, page, count):
                found[number - page] = sums[number]
        return found

    def begin_applying(self) -> None:
        """A checkpoint of everything until now begins; the one before has ended."""
        assert not self._applying
        self._applying, self._changed = self._changed, {}

    def apply(self) -> None:
        """Bring the sums of the begun checkpoint into the table; the pages are durable on their volumes.

        Raises:
            HostError: call it again.
        """
        if self._is_torn:
            with self._table_lock:
                self.table.rebuild()
        self._is_torn = True
        changes = iter(sorted(self._applying.items()))
        while part := dict(islice(changes, _SLICE_PAGES)):
            with self._table_lock:
                self._apply_slice(part)
        self._applying, self._is_torn = {}, False

    def _apply_slice(self, part: Mapping[int, int]) -> None:
        self.table.apply(part)
        for page, new in part.items():
            if block := self._blocks.get(page >> _BLOCK_SHIFT):
                block[page & _BLOCK_PAGES - 1] = new

    def term_in_table(self, page: int, count: int) -> int:
        """What these pages, inside one volume, add to the state sum; all their sums are in the table.

        Raises:
            CorruptJournalError: the table is damaged.
        """
        with self._table_lock:
            self._segments.require_right(page, count)
            return self.table.term_of(page, count)

    def forget(self) -> None:
        """The table was changed without these: nothing waits, and nothing that is cached of it holds any more."""
        assert not self._changed and not self._applying
        self._blocks.clear()

    def _load(self, page: int) -> array[int]:
        table = self.table
        first = page & -_BLOCK_PAGES
        volume = table.volumes.find(page)
        assert volume is not None, "checked where the operation was made"
        end = table.volumes.first_page(volume) + table.volumes.page_count(volume)
        with self._table_lock:
            if not self._is_torn:
                self._segments.require_right(page, 1)
            block = unpack_sums(table.read(first, min(_BLOCK_PAGES, end - first)))
            if len(self._blocks) >= _BLOCKS_MAX:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[page >> _BLOCK_SHIFT] = block  # before the lock is released: the next `apply` must find it
        return block


def _members(of: Mapping[int, int], page: int, count: int) -> Iterable[int]:
    """The pages among these that a mapping has."""
    if len(of) < count:
        return [number for number in of if page <= number < page + count]
    return [number for number in range(page, page + count) if number in of]
