"""The pages of a base, found by bisection: a base has them in order of their addresses, so that none is kept in memory.

The index of a base has for each frame its first page, and a checksum of the columns in its body: so these are read, and
believed, without the pages.
Bound: COLUMNS_BYTES of decoded columns, and the tables of frames that are cached.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from mirrortool.checksum import SUM_BYTES
from mirrortool.errors import CorruptJournalError
from mirrortool.journal import format as layout
from mirrortool.journal.bases.basefile import REMEDY
from mirrortool.points.cache import Cache
from mirrortool.points.frames import FrameReader, StoredFrame
from mirrortool.points.indexpart import FrameTable, IndexPart
from mirrortool.points.tables import TablePlace, TableStore

COLUMNS_BYTES = 8 << 20
BASE_KEY = 0
"""What FrameReader knows its file by; journal files have their first LSN, 1 or more."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Of a frame's body: the runs of its pages, and their sums.

    Attributes:
        places: pages of the frame that lie before each run.
    """

    frame: StoredFrame
    firsts: array[int]
    counts: array[int]
    places: list[int]
    sums: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """Pages that the base holds, next to each other in a frame.

    Attributes:
        number: of the first of them in its frame.
        sums: packed.
    """

    page: int
    count: int
    frame: StoredFrame
    number: int
    sums: bytes


class BasePages:
    """A base, by its pages; from any thread, once all parts were added."""

    def __init__(self, path: str, reader: FrameReader, tables: TableStore) -> None:
        """The base at a path, which `reader` knows as BASE_KEY."""
        self._path, self._reader, self._tables = path, reader, tables
        self._first_pages: list[int] = []  # of each part
        self._parts: list[TablePlace] = []
        self._columns: Cache[_Columns] = Cache(COLUMNS_BYTES)

    def add(self, part: IndexPart) -> None:
        """Take in the next part of its index."""
        if len(part.frames):
            self._first_pages.append(part.frames.firsts[0])
            self._parts.append(self._tables.put(part))

    def runs(self, page: int, end: int) -> Iterator[Held]:
        """What it holds of the pages from one up to before another, in order.

        Raises:
            CorruptJournalError: it is damaged there.
        """
        part = max(0, bisect.bisect_right(self._first_pages, page) - 1)
        for place in self._parts[part:]:
            firsts = self._tables.get(place).frames.firsts
            for number in range(max(0, bisect.bisect_right(firsts, page) - 1), place.frames):
                if firsts[number] >= end:
                    return
                yield from self._runs_in(self._columns_at(place, number), page, end)

    def damage(self, frame: StoredFrame) -> CorruptJournalError:
        """The error for pages that do not have their sums."""
        return self._corrupt(frame.offset, "pages do not have their sums")

    def _runs_in(self, columns: _Columns, page: int, end: int) -> Iterator[Held]:
        firsts, counts = columns.firsts, columns.counts
        for run in range(max(0, bisect.bisect_right(firsts, page) - 1), len(firsts)):
            first, stop = max(page, firsts[run]), min(end, firsts[run] + counts[run])
            if firsts[run] >= end:
                return
            if first < stop:
                number = columns.places[run] + first - firsts[run]
                sums = columns.sums[number * SUM_BYTES : (number + stop - first) * SUM_BYTES]
                yield Held(first, stop - first, columns.frame, number, sums)

    def _columns_at(self, place: TablePlace, number: int) -> _Columns:
        return self._columns.get((place, number), lambda: self._read_columns(self._tables.get(place).frames, number))

    def _read_columns(self, table: FrameTable, number: int) -> tuple[_Columns, int]:
        offset, head, operations = table.offsets[number], table.heads[number], table.operations[number]
        pages = table.counts[number]
        data = self._reader.raw(BASE_KEY, offset + layout.FRAME_HEADER.size, head - layout.FRAME_HEADER.size)
        length = operations * layout.COLUMN_BYTES + pages * SUM_BYTES
        if len(data) != length or xxhash.xxh3_64_intdigest(data) != table.marks[number]:
            raise self._corrupt(offset, "the frame is not what it was")
        firsts, counts = array("Q"), array("Q")
        firsts.frombytes(data[operations : 9 * operations])
        counts.frombytes(data[9 * operations : 17 * operations])
        frame = StoredFrame(BASE_KEY, offset, offset + head, table.stored[number], table.codecs[number], pages)
        places = list(itertools.accumulate(counts, initial=0))[:-1]
        return _Columns(frame, firsts, counts, places, data[17 * operations :]), 4 * length

    def _corrupt(self, offset: int, why: str) -> CorruptJournalError:
        return CorruptJournalError(f"the base is damaged at offset {offset}: {why}", where=self._path, remedy=REMEDY)
