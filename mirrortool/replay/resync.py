"""Brings a mirror to the state of a base by writing only the pages that differ.

It compares the base with the mirror's own table of sums, and makes frames of what differs. The delegator receives them
like frames of the journal, and the tasks write them.

Rule: each frame has the mirror's old position, except the last one, which is the commit of the base. Until a checkpoint
of that is durable the mirror says that it is starting over, and is not a state of the primary.
Rule: the table may be compared with also after a crash in the middle: each write takes a page to what the base has, and
the table says what the page had before, or that. Not so in these cases, where what the base has is written and all else
zeroed, whatever the table says:
    the mirror held operations after its checkpoint when the resync began, or the resync resumes with another base
    pages after the smaller end of a volume whose size changes: a RESIZE that is done again makes them zeros
Bound: a frame of the base, and the sums of TABLE_PAGES, in memory. The table is read ahead of where it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from mirrortool.address import pages_in, split_at
from mirrortool.checksum import SUM_BYTES, unpack_sums
from mirrortool.journal import format as layout
from mirrortool.journal.bases.basefile import BaseFile
from mirrortool.journal.codec import FrameHeader
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.operation import Batch, BatchBuilder
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume

FRAME_BYTES = 1 << 20
CHANGES_MAX = 1024
"""Changes of a frame: each ZERO of them may be of many pages."""
TABLE_PAGES = 1 << 16

DecodedFrame = tuple[FrameHeader, Batch]


class Resync:
    """A base for one mirror. Iterate `frames` once, in one thread.

    Attributes:
        lsn: of the base.
        ignores_table: whether all pages are written.
    """

    def __init__(self, base: BaseFile, table: PageSums, checkpoint: Checkpoint, *, ignores_table: bool) -> None:
        """Compare `base` with `table`, which is as of `checkpoint` and for reading only; the caller closes both."""
        self.lsn = base.header.position.lsn
        self.ignores_table = ignores_table
        self._base, self._table, self._checkpoint = base, table, checkpoint
        self._volumes = base.volumes
        self._trusted = {volume.name: self._trusted_end(volume) for volume in base.volumes}
        self._builder = BatchBuilder(base.header.page_size)

    def frames(self) -> Iterator[DecodedFrame]:
        """What makes the mirror the state of the base, and then its commit.

        Raises:
            CorruptJournalError: the base is damaged.
        """
        yield from self._resizes()
        done = 0
        for batch in self._batches():
            for page, count, sums, payload in _runs(batch, self._base.header.page_size):
                for first, number in self._stale(done, page):
                    self._builder.zero(first, number)
                    yield from self._full_frame()
                for first, number in self._differing(page, count, sums):
                    part = slice((first - page) * SUM_BYTES, (first - page + number) * SUM_BYTES)
                    self._builder.write(first, _pages(payload, first - page, number, count), sums[part])
                    yield from self._full_frame()
                done = page + count
        last = self._volumes_end()
        for first, number in self._stale(done, last):
            self._builder.zero(first, number)
            yield from self._full_frame()
        yield from self._full_frame(limit=1)
        yield self._commit()

    def sums(self) -> Iterator[Batch]:
        """What a resync from this base that did not end may have written: all as zeros, then the base."""
        for volume in self._volumes:
            size = max(volume.size, self._checkpoint.sizes[volume.name])  # a larger one may have been cut off
            self._builder.zero(self._volumes.first_page(volume), pages_in(size, self._volumes.page_size))
        yield self._builder.build()
        for _, batch in self._base.frames(payload=False):
            yield batch

    def _batches(self) -> Iterator[Batch]:
        return (batch for _, batch in self._base.frames())

    def _trusted_end(self, volume: Volume) -> int:
        """The first page of a volume, numbered through the address space, of which the table says nothing."""
        first, size = self._volumes.first_page(volume), self._checkpoint.sizes[volume.name]
        if self.ignores_table:
            return first
        if size == volume.size:
            return first + self._volumes.page_count(volume)
        return first + min(size, volume.size) // self._volumes.page_size

    def _resizes(self) -> Iterator[DecodedFrame]:
        for volume in self._volumes:
            if volume.size != self._checkpoint.sizes[volume.name]:
                self._builder.resize(self._volumes.first_page(volume), volume.size)
        yield from self._full_frame(limit=1)

    def _differing(self, page: int, count: int, sums: bytes) -> Iterator[tuple[int, int]]:
        """Runs among these pages, all of one volume, that the mirror may not have."""
        volume = self._volumes.find(page)
        assert volume is not None, "checked where the base was decoded"
        known = max(0, min(count, self._trusted[volume.name] - page))
        if known:
            table = self._table.read(page, known)
            new = sums[: known * SUM_BYTES]
            if table != new:
                pairs = zip(unpack_sums(table), unpack_sums(new), strict=True)
                yield from _runs_of(page, [old != now for old, now in pairs])
        if known < count:
            yield page + known, count - known

    def _stale(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Runs among pages that the base does not have which may not be zeros."""
        if first >= end:
            return
        if self._volumes.find(first, end - first):
            volume = self._volumes.find(first)
            assert volume is not None
            yield from self._stale_in(volume, first, end)
            return
        for volume in self._volumes:
            start = self._volumes.first_page(volume)
            inside = max(first, start), min(end, start + self._volumes.page_count(volume))
            if inside[0] < inside[1]:
                yield from self._stale_in(volume, *inside)

    def _stale_in(self, volume: Volume, first: int, end: int) -> Iterator[tuple[int, int]]:
        trusted = max(first, min(end, self._trusted[volume.name]))
        for run, length in self._table.nonzero_runs(first, trusted - first):
            for page, count in split_at(run, length, TABLE_PAGES):
                yield from _runs_of(page, list(map(bool, unpack_sums(self._table.read(page, count)))))
        if trusted < end:
            yield trusted, end - trusted

    def _volumes_end(self) -> int:
        return max(self._volumes.first_page(each) + self._volumes.page_count(each) for each in self._volumes)

    def _full_frame(self, limit: int = CHANGES_MAX) -> Iterator[DecodedFrame]:
        """A frame of what was collected, if that is enough."""
        if len(self._builder) < limit and self._builder.payload_bytes < FRAME_BYTES:
            return
        batch, now = self._builder.build(), self._checkpoint
        yield _header(batch, 0, now, now.position.lsn), batch

    def _commit(self) -> DecodedFrame:
        header = self._base.header
        self._builder.commit(header.kind, NO_LSN)
        batch = self._builder.build()
        return FrameHeader(
            1, self.lsn, 0, 0, layout.CODEC_RAW, layout.FLAG_COMMIT, 0, header.time_ns, header.position.chain,
            header.state_sum, 0, header.position,
        ), batch  # fmt: skip


def _header(batch: Batch, flags: int, now: Checkpoint, lsn: Lsn) -> FrameHeader:
    """The header of a frame that leaves the mirror's position where it is."""
    return FrameHeader(
        len(batch), lsn, batch.page_count, len(batch.payload), layout.CODEC_RAW, flags, 0, now.time_ns,
        now.position.chain, now.state_sum, 0, now.position,
    )  # fmt: skip


def _runs(batch: Batch, page_size: int) -> Iterator[tuple[int, int, bytes, memoryview]]:
    """The runs of a base's batch: first page, how many, their sums, their content."""
    sums, payload, done = bytes(batch.sums), memoryview(batch.payload), 0
    for page, count in zip(batch.pages, batch.counts, strict=True):
        end = done + count
        yield page, count, sums[done * SUM_BYTES : end * SUM_BYTES], payload[done * page_size : end * page_size]
        done = end


def _pages(payload: memoryview, place: int, number: int, count: int) -> memoryview:
    size = len(payload) // count
    return payload[place * size : (place + number) * size]


def _runs_of(page: int, wanted: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """The runs of pages, the first of them `page`, that are wanted."""
    for is_wanted, members in groupby(wanted):
        count = sum(1 for _ in members)
        if is_wanted:
            yield page, count
        page += count
