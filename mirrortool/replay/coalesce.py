"""Turns a window of batches into units: the last write of each page, in address order, cut where groups change.

The result is that of serial replay at the end of the window, because (mirrortool-design(7), Coalescing):
1. only absolute writes are coalesced; zeroing counts as one, resizing does not and ends a stretch;
2. no window spans a checkpoint, a resize, or anything that reads the store;
3. a page is dropped only where a later write of the same window covers it whole;
4. every operation was decoded and checked before it is dropped;
5. all LSNs of the window complete together;
6. readers and recovery look at checkpoints only.

A stretch whose writes are disjoint keeps its buffers whole; only one with overlaps is split into pages.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from mirrortool.address import VOLUME_ALIGNMENT
from mirrortool.checksum import unpack_sums
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import Batch, Kind
from mirrortool.replay.ranges import Ranges
from mirrortool.replay.writeunit import Footprint, WriteUnit

_SCATTERED = 0.8
"""With this many runs to a page, neighbours are not merged."""
INLINE_ZERO_BYTES = 1 << 20
"""A ZERO above this runs alone: it visits what is allocated, where a unit costs memory and time for each page."""
STRETCH_PAGES = 1 << 16
"""ZEROs make a stretch no longer than this: a few bytes in the journal name many pages."""


@dataclass(slots=True)
class Pieces:
    """Writes as columns: first page, how many, their data, or None for zeros, and, only where asked for, their LSNs."""

    firsts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    data: list[memoryview | None] = field(default_factory=list)
    lsns: list[Lsn] = field(default_factory=list)

    def written(self) -> Iterator[tuple[int, int]]:
        """The runs (first page, count) that are written, not zeroed."""
        columns = zip(self.firsts, self.counts, self.data, strict=True)
        return ((first, count) for first, count, data in columns if data is not None)

    def in_order(self) -> Pieces:
        """The same in address order."""
        order = sorted(range(len(self.firsts)), key=self.firsts.__getitem__)
        return Pieces([self.firsts[i] for i in order], [self.counts[i] for i in order], [self.data[i] for i in order])

    def are_disjoint(self) -> bool:
        """Whether no two, in address order, overlap."""
        ends = map(operator.add, self.firsts, self.counts)
        return all(map(operator.ge, itertools.islice(self.firsts, 1, None), ends))


@dataclass(frozen=True, slots=True)
class Inline:
    """An operation that runs alone, between two drains: a RESIZE, or a large ZERO."""

    kind: Kind
    page: int
    count: int
    lsn: Lsn = NO_LSN


@dataclass(slots=True)
class Stretch:
    """Writes between two inline operations.

    Attributes:
        pieces: in arrival order.
        lsn_marks: pairs of the number of a piece and its LSN; the pieces up to the next such number have the LSNs after
            it.
        sums: the newest sum of each page that it touches.
    """

    pieces: Pieces = field(default_factory=Pieces)
    lsn_marks: list[tuple[int, Lsn]] = field(default_factory=list)
    sums: dict[int, int] = field(default_factory=dict)

    def mark(self, lsn: Lsn) -> None:
        """The next piece is that of the operation with this LSN."""
        self.lsn_marks.append((len(self.pieces.firsts), lsn))

    def numbered(self) -> Pieces:
        """The pieces with their LSNs; NO_LSN for those that have none."""
        ends = [number for number, _ in self.lsn_marks[1:]] + [len(self.pieces.firsts)]
        marks = zip(self.lsn_marks, ends, strict=False)
        lsns = [Lsn(lsn + each if lsn else lsn) for (start, lsn), end in marks for each in range(end - start)]
        return replace(self.pieces, lsns=lsns or [NO_LSN] * len(self.pieces.firsts))

    def add(self, page: int, count: int, data: memoryview | None, sums: Iterable[int]) -> None:
        """Write pages, or with `data` None zero them."""
        self.pieces.firsts.append(page)
        self.pieces.counts.append(count)
        self.pieces.data.append(data)
        self.sums.update(zip(range(page, page + count), sums, strict=True))

    def without_overlaps(self, page_size: int) -> Pieces:
        """The pieces in address order, without overlaps: later writes have replaced earlier ones."""
        if max(self.pieces.counts) > 1:
            pieces = self.pieces.in_order()
            if pieces.are_disjoint():
                return pieces
        last: dict[int, memoryview | None] = {}
        if len(self.pieces.firsts) == sum(self.pieces.counts):
            last.update(zip(self.pieces.firsts, self.pieces.data, strict=True))
        else:
            for first, count, data in zip(self.pieces.firsts, self.pieces.counts, self.pieces.data, strict=True):
                split = itertools.repeat(None, count) if data is None else _split(data, page_size)
                last.update(zip(range(first, first + count), split, strict=True))
        pages = sorted(last)
        return Pieces(pages, [1] * len(pages), list(map(last.__getitem__, pages)))


def stretches(
    batches: Iterable[Batch], page_size: int, first_lsns: Iterable[Lsn] = itertools.repeat(NO_LSN)
) -> Iterator[Stretch | Inline]:
    """A window's batches as stretches of writes and the inline operations between them, in order.

    Args:
        first_lsns: of each batch; its operations have this one and those after it, or none with NO_LSN.
    """
    stretch = Stretch()
    for batch, first_lsn in zip(batches, first_lsns, strict=False):
        stretch.mark(first_lsn)
        kinds = batch.kinds[:-1] if batch.is_commit else batch.kinds
        if kinds.count(Kind.WRITE) == len(kinds):
            _add_writes(stretch, batch, len(kinds), page_size)
            continue
        payload, sums, done = memoryview(batch.payload), unpack_sums(batch.sums), 0
        lsns = itertools.count(first_lsn, 1 if first_lsn else 0)
        for lsn, kind, page, count in zip(lsns, kinds, batch.pages, batch.counts, strict=False):
            if kind == Kind.WRITE:
                data = payload[done * page_size : (done + count) * page_size]
                stretch.add(page, count, data, sums[done : done + count])
                done += count
            elif not _runs_alone(kind, count, page_size):
                if len(stretch.sums) >= STRETCH_PAGES:
                    yield stretch
                    stretch = Stretch()
                    stretch.mark(Lsn(lsn))
                stretch.add(page, count, None, itertools.repeat(0, count))
            else:
                yield stretch
                yield Inline(Kind(kind), page, count, Lsn(lsn))
                stretch = Stretch()
                stretch.mark(Lsn(lsn + 1) if lsn else NO_LSN)
    yield stretch


def has_inline(batch: Batch, page_size: int) -> bool:
    """Whether a batch has an operation that runs alone."""
    kinds = batch.kinds[:-1] if batch.is_commit else batch.kinds
    if kinds.count(Kind.WRITE) == len(kinds):
        return False
    each = zip(kinds, batch.counts, strict=False)
    return any(kind != Kind.WRITE and _runs_alone(kind, count, page_size) for kind, count in each)


def _runs_alone(kind: int, count: int, page_size: int) -> bool:
    return kind != Kind.ZERO or count * page_size > INLINE_ZERO_BYTES


def to_units(pieces: Pieces, ranges: Ranges, page_size: int, unit_pages: int) -> Iterator[tuple[int, WriteUnit]]:
    """Units of about `unit_pages`, each of one group, volume and kind, with the number of the group.

    Args:
        pieces: in address order and disjoint.
    """
    for part in _by_kind(_without_crossings(pieces, ranges)):
        totals = list(itertools.accumulate(part.counts, initial=0))
        for group, begin, end in _cut(part.firsts, totals, ranges, VOLUME_ALIGNMENT // page_size, unit_pages):
            yield group, _unit(part, totals, begin, end, page_size)


def to_single_units(stretch: Stretch, ranges: Ranges, page_size: int) -> Iterator[tuple[int, WriteUnit]]:
    """Each piece a unit of its own, in arrival order, with the number of its group: the patent to the letter."""
    cut = _without_crossings(stretch.numbered(), ranges)
    for first, count, data, lsn in zip(cut.firsts, cut.counts, cut.data, cut.lsns, strict=True):
        footprint = Footprint(first, first + count)
        if data is None:
            unit = WriteUnit(0, footprint, [], [(first, count)], 0, lsn)
        else:
            unit = WriteUnit(0, footprint, [(first, [data], len(data))], [], count * page_size, lsn)
        yield ranges.group_of(first), unit


@dataclass(frozen=True, slots=True)
class _Part:
    """Pieces of one kind: writes with their data, or zeros without."""

    firsts: list[int]
    counts: list[int]
    data: list[memoryview]


def _by_kind(pieces: Pieces) -> Iterator[_Part]:
    """The writes, then the zeros: they are disjoint, so that their order does not matter."""
    written = [data for data in pieces.data if data is not None]
    if len(written) == len(pieces.data):
        yield _Part(pieces.firsts, pieces.counts, written)
        return
    for is_zero in (False, True):
        chosen = [(data is None) == is_zero for data in pieces.data]
        firsts, counts = itertools.compress(pieces.firsts, chosen), itertools.compress(pieces.counts, chosen)
        yield _Part(list(firsts), list(counts), [] if is_zero else written)


def _cut(
    firsts: list[int], totals: list[int], ranges: Ranges, volume_pages: int, unit_pages: int
) -> Iterator[tuple[int, int, int]]:
    """Index ranges of the pieces that make a unit, with their group; `totals` are the pages before each piece."""
    begin = 0
    while begin < len(firsts):
        first = firsts[begin]
        border = min(ranges.boundary_after(first), first - first % volume_pages + volume_pages)
        end = bisect.bisect_left(firsts, border, begin)
        full = bisect.bisect_right(totals, totals[begin] + unit_pages) - 1
        end = min(end, max(full, begin + 1))
        yield ranges.group_of(first), begin, end
        begin = end


def _unit(part: _Part, totals: list[int], begin: int, end: int, page_size: int) -> WriteUnit:
    """The pieces `begin … end-1` as a unit."""
    firsts, data = part.firsts[begin:end], part.data[begin:end]
    length = totals[end] - totals[begin]
    expected = map(operator.add, firsts, itertools.islice(part.counts, begin, end))
    ends = zip(firsts[1:], expected, strict=False)
    breaks = [i for i, (first, end_before) in enumerate(ends, 1) if first != end_before]
    if data and length == len(firsts) and len(breaks) > _SCATTERED * length:
        # Single pages, few of them neighbours: to merge those would cost more than their system calls.
        footprint = Footprint(firsts[0], firsts[-1] + 1, frozenset(firsts))
        runs = list(zip(firsts, zip(data, strict=True), itertools.repeat(page_size), strict=False))
        return WriteUnit(0, footprint, runs, [], length * page_size)
    edges = itertools.pairwise([0, *breaks, end - begin])
    spans = [(firsts[i], totals[begin + j] - totals[begin + i], i, j) for i, j in edges]
    footprint = Footprint.of_runs([(first, count) for first, count, _, _ in spans])
    if not data:
        return WriteUnit(0, footprint, [], [(first, count) for first, count, _, _ in spans])
    merged = [(first, data[i:j], count * page_size) for first, count, i, j in spans]
    return WriteUnit(0, footprint, merged, [], length * page_size)


def _without_crossings(pieces: Pieces, ranges: Ranges) -> Pieces:
    """The same, with every piece that crosses the border between two groups' ranges cut there."""
    if max(pieces.counts, default=1) == 1:
        return pieces
    cut, lsns = Pieces(), pieces.lsns
    for number, (first, count, data) in enumerate(zip(pieces.firsts, pieces.counts, pieces.data, strict=True)):
        size = len(data) // count if data is not None else 0
        at = first
        while at < first + count:
            taken = min(first + count, ranges.boundary_after(at)) - at
            cut.firsts.append(at)
            cut.counts.append(taken)
            cut.data.append(None if data is None else data[(at - first) * size : (at - first + taken) * size])
            cut.lsns += lsns[number : number + 1]
            at += taken
    return cut


def _add_writes(stretch: Stretch, batch: Batch, count: int, page_size: int) -> None:
    payload = memoryview(batch.payload)
    pages, counts = batch.pages[:count], batch.counts[:count]
    sums = unpack_sums(batch.sums)
    if len(sums) == count:
        stretch.pieces.firsts += pages
        stretch.pieces.counts += counts
        stretch.pieces.data += _split(payload, page_size)
        stretch.sums.update(zip(pages, sums, strict=True))
        return
    done = 0
    for page, number in zip(pages, counts, strict=True):
        data = payload[done * page_size : (done + number) * page_size]
        stretch.add(page, number, data, sums[done : done + number])
        done += number


def _split(data: memoryview, page_size: int) -> list[memoryview]:
    return [data[i : i + page_size] for i in range(0, len(data), page_size)]
