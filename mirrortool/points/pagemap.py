"""Where the newest content of each page is: a table that is made by applying operations in order.

Pages go by chunks of CHUNK_PAGES, made where something is written: so memory is in proportion to that. With CHUNKS_MAX
of them all go to sparse files in a directory for temporary files, one for each volume, and come back when they are
needed.

Rule: made by one thread; after `freeze` nothing changes, and any thread may look things up.
Bound: CHUNKS_MAX chunks of 1 KiB; on disk 8 bytes for each page, where something is written; a range for each stretch
of chunks that was zeroed.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence

from mirrortool import files
from mirrortool.address import split_at
from mirrortool.files import File
from mirrortool.operation import Kind
from mirrortool.volume import VolumeSet

CHUNK_PAGES = 128
CHUNKS_MAX = 65536
UNTOUCHED = 0
"""The place of a page that nothing was said of: it is as it was at the start."""
ZEROED = 1
FIRST_PLACE = 2
_SHIFT = CHUNK_PAGES.bit_length() - 1
_MASK = CHUNK_PAGES - 1
_CHUNK_BYTES = 8 * CHUNK_PAGES
_IS_WRITE = bytes(kind == Kind.WRITE for kind in range(256))
_EMPTY = array("Q", bytes(_CHUNK_BYTES))
_ZEROED = array("Q", [ZEROED]) * CHUNK_PAGES

Piece = tuple[int, Sequence[int]]
"""The first page of some, and their places."""


class OutsideError(Exception):
    """An operation outside the volumes."""


class PageMap:
    """Of each page its place: a number that its content has in the order of what was written."""

    def __init__(self, volumes: VolumeSet, directory: Callable[[], str], *, is_empty: bool) -> None:
        """Nothing is touched yet.

        Args:
            volumes: with their sizes at the start.
            directory: makes, at the first call, the one for temporary files.
            is_empty: whether all pages are zeros at the start, so that a page that becomes zeros need not be noted.
        """
        self.volumes = volumes
        self._is_empty = is_empty
        self._directory = directory
        self._first_keys = [volumes.first_page(volume) >> _SHIFT for volume in volumes]
        self._names = [volume.name for volume in volumes]
        self._chunks: dict[int, array[int]] = {}  # the places of a chunk's pages
        self._spilled: dict[int, File] = {}  # by the number of the volume
        self._zeroed = _Ranges()  # whole chunks, of which nothing that was there at the start is left
        self._keys: list[int] = []  # of the chunks in memory, ascending; once it is frozen

    def close(self) -> None:
        for file in self._spilled.values():
            file.close()

    def apply(
        self, kinds: bytes | bytearray, pages: Sequence[int], counts: Sequence[int], sums: Sequence[int], place: int
    ) -> None:
        """Apply operations in order; the first page that they write has this place, and those after it follow.

        Args:
            sums: of the pages that they write; one that has the sum 0 is zeros.
        Raises:
            OutsideError: one lies outside the volumes.
        """
        is_plain = kinds.count(Kind.WRITE) == len(sums) and Kind.ZERO not in kinds and Kind.RESIZE not in kinds
        if is_plain and 0 not in sums:  # writes of a page each
            written = array("Q", itertools.compress(pages, kinds.translate(_IS_WRITE)))
            if self._have_volume(written):
                self._write_single(written, place)
                return
        done, low, high = 0, 0, 0
        for kind, page, count in zip(kinds, pages, counts, strict=True):
            if kind >= Kind.COMMIT:
                continue
            if kind == Kind.RESIZE:
                self._resize(page, count)
                low = high = 0
                continue
            if page < low or page + count > high:
                low, high = self._bounds(page, count)
            if kind == Kind.ZERO:
                self.zero(page, count)
            else:
                self._write(page, count, place + done, sums[done : done + count])
                done += count

    def zero(self, page: int, count: int) -> None:
        """Make pages zeros; costs no more than the chunks that there are."""
        end = page + count
        first, last = -(-page >> _SHIFT), end >> _SHIFT
        if first >= last:
            for each, number in split_at(page, count, CHUNK_PAGES):
                self._zero_in_chunk(each, number)
            return
        if page & _MASK:
            self._zero_in_chunk(page, (first << _SHIFT) - page)
        if end & _MASK:
            self._zero_in_chunk(last << _SHIFT, end & _MASK)
        self._drop(first, last)

    def freeze(self) -> None:
        """Everything was applied."""
        if self._spilled:
            self._spill()
        self._keys = sorted(self._chunks)

    def pieces(self, page: int, count: int) -> Iterator[Piece]:
        """Pages of one volume, a chunk at a time."""
        for first, number in split_at(page, count, CHUNK_PAGES):
            place = first & _MASK
            yield first, self._find(first >> _SHIFT)[place : place + number]

    def chunks(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        """Runs (first page, count) among pages of one volume, ascending, of chunks in which something was touched."""
        end = page + count
        if self._spilled:
            yield from self._spilled_chunks(page, end)
            return
        for key in self._keys[bisect.bisect_left(self._keys, page >> _SHIFT) :]:
            if key << _SHIFT >= end:
                return
            first = max(page, key << _SHIFT)
            yield first, min(end, (key + 1) << _SHIFT) - first

    def zeroed_until(self, page: int) -> int:
        """The end of the range with this page in which untouched ones are zeros all the same; `page` if none has it."""
        return self._zeroed.end_of(page)

    def next_zeroed(self, page: int, end: int) -> int:
        """The first page from this one on that is in such a range; `end` if none before that is."""
        return self._zeroed.next_start(page, end)

    def _bounds(self, page: int, count: int) -> tuple[int, int]:
        """The first page of the volume that holds these, and the one after its last."""
        volume = self.volumes.find(page, count)
        if volume is None:
            raise OutsideError
        first = self.volumes.first_page(volume)
        return first, first + self.volumes.page_count(volume)

    def _resize(self, page: int, size: int) -> None:
        volume = self.volumes.starting_at(page)
        if volume is None or size > self.volumes.limit_of(volume):
            raise OutsideError
        first, end = size // self.volumes.page_size, self.volumes.page_count(volume)
        # A larger end in the same page leaves that page as it is: after the old end it reads as zeros already.
        if size < volume.size and first < end:
            self.zero(page + first, end - first)
        self.volumes = self.volumes.resized(volume, size)

    def _have_volume(self, pages: Sequence[int]) -> bool:
        """Whether all of these pages lie in one volume."""
        low = min(pages, default=0)
        return self.volumes.find(low, max(pages, default=0) + 1 - low) is not None

    def _write_single(self, pages: Sequence[int], place: int) -> None:
        """Write single pages: the hot path."""
        chunks = self._chunks
        for each, page in enumerate(pages, place):
            try:
                chunks[page >> _SHIFT][page & _MASK] = each
            except KeyError:
                self._take(page >> _SHIFT)[page & _MASK] = each

    def _write(self, page: int, count: int, place: int, sums: Sequence[int]) -> None:
        done = 0
        for first, number in split_at(page, count, CHUNK_PAGES):
            chunk = self._chunks.get(first >> _SHIFT) or self._take(first >> _SHIFT)
            at = first & _MASK
            places = array("Q", range(place + done, place + done + number))
            if 0 in sums:
                for each in range(number):
                    if not sums[done + each]:
                        places[each] = ZEROED
            chunk[at : at + number] = places
            done += number

    def _zero_in_chunk(self, page: int, count: int) -> None:
        key, at = page >> _SHIFT, page & _MASK
        chunk = self._chunks.get(key)
        if chunk is None:
            if self._is_empty and self._file_of(key)[0] is None:
                return
            chunk = self._take(key)
        chunk[at : at + count] = _ZEROED[:count]

    def _drop(self, first: int, last: int) -> None:
        """Chunks from one up to before another are zeros."""
        here = range(first, last)
        for key in here if len(here) < len(self._chunks) else [key for key in self._chunks if key in here]:
            self._chunks.pop(key, None)
        file, place = self._file_of(first)
        if file:
            file.punch(place * _CHUNK_BYTES, (last - first) * _CHUNK_BYTES)
        if not self._is_empty:
            self._zeroed.add(first << _SHIFT, last << _SHIFT)

    def _find(self, key: int) -> array[int]:
        """A chunk, to be read; once the map is frozen."""
        return self._chunks.get(key) or self._load(key) or _EMPTY

    def _take(self, key: int) -> array[int]:
        """A chunk that is not in memory, to be changed."""
        if len(self._chunks) >= CHUNKS_MAX:
            self._spill()
        chunk = self._chunks[key] = self._load(key) or array("Q", _EMPTY)
        return chunk

    def _load(self, key: int) -> array[int] | None:
        file, place = self._file_of(key)
        data = file.pread(_CHUNK_BYTES, place * _CHUNK_BYTES) if file else b""
        return array("Q", data.ljust(_CHUNK_BYTES, b"\0")) if data else None

    def _spill(self) -> None:
        for key in sorted(self._chunks):
            number = bisect.bisect_right(self._first_keys, key) - 1
            if number not in self._spilled:
                path = files.join(self._directory(), f"pages-{number}")
                self._spilled[number] = files.make_file(path)
            place = key - self._first_keys[number]
            self._spilled[number].pwrite(self._chunks[key].tobytes(), place * _CHUNK_BYTES)
        self._chunks.clear()

    def _file_of(self, key: int) -> tuple[File | None, int]:
        """The file of a chunk, if its volume has one, and the chunk's number in it."""
        if not self._spilled:
            return None, 0
        number = bisect.bisect_right(self._first_keys, key) - 1
        return self._spilled.get(number), key - self._first_keys[number]

    def _spilled_chunks(self, page: int, end: int) -> Iterator[tuple[int, int]]:
        file, place = self._file_of(page >> _SHIFT)
        if file is None:
            return
        origin = (page >> _SHIFT) - place
        last = -(-end >> _SHIFT) - origin
        done = page
        for start, stop in file.data_extents(place * _CHUNK_BYTES, last * _CHUNK_BYTES):
            first = max(done, (origin + start // _CHUNK_BYTES) << _SHIFT)
            done = min(end, (origin - (-stop // _CHUNK_BYTES)) << _SHIFT)
            if first < done:
                yield first, done - first


class _Ranges:
    """A set of numbers as ranges, ascending, that do not meet."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def end_of(self, number: int) -> int:
        place = bisect.bisect_right(self._starts, number) - 1
        return max(number, self._ends[place]) if place >= 0 else number

    def next_start(self, number: int, end: int) -> int:
        place = bisect.bisect_right(self._ends, number)
        return min(end, max(number, self._starts[place])) if place < len(self._starts) else end
