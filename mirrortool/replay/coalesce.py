"""Turns a window of batches into units: the last write of each page, in address order, cut where groups change.

The result is that of serial replay at the end of the window, because (ALGORITHM, "Coalescing", six conditions):
1. only absolute writes are coalesced; zeroing counts as one, resizing does not and ends a stretch;
2. no window spans a checkpoint, a resize, or anything that reads the store;
3. a page is dropped only where a later write of the same window covers it whole;
4. every operation was decoded and checked before it is dropped;
5. all LSNs of the window complete together;
6. readers and recovery look at checkpoints only.

A stretch whose writes are disjoint keeps its buffers whole; only one with overlaps is taken apart into pages.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from mirrortool.checksum import unpack_sums
from mirrortool.files import Buffer
from mirrortool.operation import Batch, Kind
from mirrortool.replay.ranges import Ranges
from mirrortool.replay.unit import Footprint, Unit

INLINE_ZERO_BYTES = 64 << 20
"""A ZERO above this runs alone: it visits what is allocated, and its footprint would hold up everything anyway."""

# (first page, pages, their data or None for zeros)
Piece = tuple[int, int, memoryview | None]


@dataclass(frozen=True, slots=True)
class Inline:
    """An operation that runs alone, between two drains: a RESIZE, or a large ZERO."""

    kind: Kind
    page: int
    count: int


@dataclass(slots=True)
class Stretch:
    """Writes between two inline operations.

    Attributes:
        pieces: in arrival order.
        sums: the newest sum of each page that it touches.
    """

    pieces: list[Piece] = field(default_factory=list)
    sums: dict[int, int] = field(default_factory=dict)

    def add(self, page: int, count: int, data: memoryview | None, sums: Iterable[int]) -> None:
        """Write pages, or with `data` None zero them."""
        self.pieces.append((page, count, data))
        self.sums.update(zip(range(page, page + count), sums, strict=True))

    def settled(self, page_size: int) -> list[Piece]:
        """The pieces in address order, without overlaps: later writes have replaced earlier ones."""
        pieces = sorted(self.pieces, key=itemgetter(0))
        if _are_disjoint(pieces):
            return pieces
        last: dict[int, memoryview | None] = {}
        for first, count, data in self.pieces:
            if count == 1:
                last[first] = data
            elif data is None:
                last.update(dict.fromkeys(range(first, first + count)))
            else:
                last.update(zip(range(first, first + count), _split(data, page_size), strict=True))
        return [(page, 1, last[page]) for page in sorted(last)]


def stretches(batches: Iterable[Batch], page_size: int) -> Iterator[Stretch | Inline]:
    """A window's batches as stretches of writes and the inline operations between them, in order."""
    stretch = Stretch()
    for batch in batches:
        kinds = batch.kinds[:-1] if batch.is_commit else batch.kinds
        if kinds.count(Kind.WRITE) == len(kinds):
            _add_writes(stretch, batch, len(kinds), page_size)
            continue
        payload, sums, done = memoryview(batch.payload), unpack_sums(batch.sums), 0
        for kind, page, count in zip(kinds, batch.pages, batch.counts, strict=False):
            if kind == Kind.WRITE:
                data = payload[done * page_size : (done + count) * page_size]
                stretch.add(page, count, data, sums[done : done + count])
                done += count
            elif kind == Kind.ZERO and count * page_size <= INLINE_ZERO_BYTES:
                stretch.add(page, count, None, itertools.repeat(0, count))
            else:
                yield stretch
                yield Inline(Kind(kind), page, count)
                stretch = Stretch()
    yield stretch


def to_units(pieces: Sequence[Piece], ranges: Ranges, page_size: int, unit_pages: int) -> Iterator[tuple[int, Unit]]:
    """Units of about `unit_pages` with the number of their group; `pieces` are in address order and disjoint.

    With `unit_pages` 1 every piece is a unit, whatever its length: the patent's single operations.
    """
    maker = _UnitMaker(unit_pages)
    boundary = -1
    group = 0
    for first, count, data in pieces:
        while count:
            if first >= boundary:
                yield from maker.take(group)
                group, boundary = ranges.group_of(first), ranges.boundary_after(first)
            taken = min(count, boundary - first)
            if maker.is_full(taken):
                yield from maker.take(group)
            if taken == count:
                maker.add(first, count, data)
                break
            maker.add(first, taken, None if data is None else data[: taken * page_size])
            data = None if data is None else data[taken * page_size :]
            first, count = first + taken, count - taken
    yield from maker.take(group)


class _UnitMaker:
    """Collects adjacent pieces into runs, and runs into a unit."""

    def __init__(self, unit_pages: int) -> None:
        self._unit_pages = unit_pages
        self._covered: list[tuple[int, int]] = []
        self._runs: list[tuple[int, list[Buffer]]] = []
        self._zeros: list[tuple[int, int]] = []
        self._run: list[Buffer] | None = None  # the last of _runs, while it can still grow
        self._pages = self._bytes = 0
        self._end = -1

    def is_full(self, count: int) -> bool:
        return bool(self._covered) and self._pages + count > self._unit_pages

    def add(self, first: int, count: int, data: memoryview | None) -> None:
        self._pages += count
        if self._covered and first == self._end:
            start, length = self._covered[-1]
            self._covered[-1] = (start, length + count)
        else:
            self._covered.append((first, count))
            self._run = None
        self._end = first + count
        if data is None:
            self._zeros.append((first, count))
            self._run = None
            return
        if self._run is None:
            self._run = []
            self._runs.append((first, self._run))
        self._run.append(data)
        self._bytes += len(data)

    def take(self, group: int) -> Iterator[tuple[int, Unit]]:
        """The unit so far, if there is one."""
        if self._covered:
            yield group, Unit(0, Footprint.of_runs(self._covered), self._runs, self._zeros, self._bytes)
            self._covered, self._runs, self._zeros, self._run = [], [], [], None
            self._pages = self._bytes = 0
            self._end = -1


def _add_writes(stretch: Stretch, batch: Batch, count: int, page_size: int) -> None:
    payload = memoryview(batch.payload)
    pages, counts = batch.pages[:count], batch.counts[:count]
    sums = unpack_sums(batch.sums)
    if len(sums) == count:
        stretch.pieces.extend(zip(pages, counts, _split(payload, page_size), strict=True))
        stretch.sums.update(zip(pages, sums, strict=True))
        return
    done = 0
    for page, number in zip(pages, counts, strict=True):
        data = payload[done * page_size : (done + number) * page_size]
        stretch.add(page, number, data, sums[done : done + number])
        done += number


def _are_disjoint(pieces: Sequence[Piece]) -> bool:
    end = -1
    for first, count, _ in pieces:
        if first < end:
            return False
        end = first + count
    return True


def _split(data: memoryview, page_size: int) -> list[memoryview]:
    return [data[i : i + page_size] for i in range(0, len(data), page_size)]
