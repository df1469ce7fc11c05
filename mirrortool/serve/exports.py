"""The NBD exports of a state: read-only, or with a scratch over it that takes what clients change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from mirrortool.change import Change
from mirrortool.files import Buffer
from mirrortool.serve.scratch import Kept, Scratch
from mirrortool.store.interface import PageReader
from mirrortool.volume import Volume

ReadPages = Callable[[int, memoryview], None]


class ReadOnlyExport:
    """One volume of a state; see nbd/export.py for what each method promises."""

    read_only = True
    zeroes_fast = True

    def __init__(self, reader: PageReader, volume: Volume, description: str) -> None:
        self.name = volume.name
        self.description = description
        self.size = volume.size
        self.page_size = reader.page_size
        self._reader = reader
        self._first_page = reader.volumes.first_page(volume)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer; the pages at its ends may be read in part."""
        size = self.page_size
        first, start = divmod(offset, size)
        if not start and not len(buffer) % size:
            self._read_pages(self._first_page + first, buffer)
            return
        end = offset + len(buffer)
        pages = memoryview(bytearray((-(-end // size) - first) * size))
        self._read_pages(self._first_page + first, pages)
        buffer[:] = pages[start : start + len(buffer)]

    def change(self, changes: Sequence[Change]) -> None:
        raise AssertionError("the server refuses changes of what is read-only")

    def flush(self) -> None:
        """Nothing was changed."""

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        end = offset + length
        first = self._first_page + offset // self.page_size
        last = self._first_page - (-end // self.page_size)
        for page, stop, is_hole in self._extents(first, last):
            low = max(offset, (page - self._first_page) * self.page_size)
            high = min(end, (stop - self._first_page) * self.page_size)
            yield high - low, is_hole

    def cache(self, offset: int, length: int) -> None:
        """The kernel reads ahead as it sees fit."""

    def _read_pages(self, page: int, buffer: memoryview) -> None:
        self._reader.read_into(page, [buffer])

    def _extents(self, page: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Runs (first page, the page after the last, whether it is a hole) of all these pages."""
        return with_holes(self._reader.data_runs(page, end - page), page, end)


class WritableExport(ReadOnlyExport):
    """One volume of a state, and what clients changed of it."""

    read_only = False

    def __init__(self, reader: PageReader, volume: Volume, description: str, scratch: Scratch) -> None:
        super().__init__(reader, volume, description)
        self._scratch = scratch

    def change(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._change(change)

    def flush(self) -> None:
        """Nothing outlives the server, so nothing has to be durable."""

    def _change(self, change: Change) -> None:
        """A part of a page, whole pages, and a part of a page; each may be missing."""
        size = self.page_size
        start, end = change.offset, change.offset + change.length
        head = min(end, -(-start // size) * size)
        tail = max(head, end // size * size)
        if start < head:
            self._change_part(start, head, change)
        if head < tail:
            self._change_pages(head, tail, change)
        if tail < end:
            self._change_part(tail, end, change)

    def _change_part(self, start: int, end: int, change: Change) -> None:
        page, within = self._first_page + start // self.page_size, start % self.page_size
        below = memoryview(bytearray(self.page_size))
        if self._scratch.missing_runs(page, 1):
            self._reader.read_into(page, [below])
        self._scratch.write_part(page, within, _part_of(change, start, end), below)

    def _change_pages(self, start: int, end: int, change: Change) -> None:
        page, count = self._first_page + start // self.page_size, (end - start) // self.page_size
        if change.data is not None:
            self._scratch.write(page, _part_of(change, start, end))
        elif change.keep_allocated:
            self._scratch.write_zeros(page, count)
        else:
            self._scratch.zero(page, count)

    def _read_pages(self, page: int, buffer: memoryview) -> None:
        """First what lies below, then what the scratch has by then over it: see scratch.py."""
        for first, count in self._scratch.missing_runs(page, len(buffer) // self.page_size):
            at = (first - page) * self.page_size
            self._reader.read_into(first, [buffer[at : at + count * self.page_size]])
        self._scratch.lay_over(page, buffer)

    def _extents(self, page: int, end: int) -> Iterator[tuple[int, int, bool]]:
        for first, count, kept in self._scratch.runs(page, end - page):
            if kept == Kept.NOTHING:
                yield from super()._extents(first, first + count)
            else:
                yield first, first + count, kept == Kept.ZERO


def with_holes(runs: Iterable[tuple[int, int]], page: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Runs (first page, count) of data, ascending, with the holes before, between and after them up to `end`.

    Each is the first page, the one after the last, and whether it is a hole.
    """
    for first, count in runs:
        if page < first:
            yield page, first, True
        yield first, first + count, False
        page = first + count
    if page < end:
        yield page, end, True


def _part_of(change: Change, start: int, end: int) -> Buffer:
    if change.data is None:
        return bytes(end - start)
    return memoryview(change.data)[start - change.offset : end - change.offset]
