"""The scratch file: what clients change of a state that they cannot change, until the server ends.

A page that was written has a slot in a file without a name, which is gone with the process, whatever ends it; a page
that was zeroed has none. What each page has stands in a map in memory, so that nothing of it has to be durable.

Rule: a page that is in the scratch never goes back to the state below. So a reader may read that first, and then lay
over it what the scratch has by then.
Bound: slots of `bytes_max` together; NoSpaceError beyond. The map has 1 KiB for each MiB of pages of 4 KiB in which
something was written or, less than a MiB at once, zeroed; what was zeroed by the MiB costs next to nothing.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from array import array
from collections.abc import Iterator, Sequence
from enum import IntEnum

from mirrortool import files
from mirrortool.address import split_at
from mirrortool.errors import NoSpaceError
from mirrortool.files import Buffer, File
from mirrortool.wording import format_bytes

CHUNK_PAGES = 256
"""Pages that have an array of the map together."""
_SLOTS_MAX = (1 << 32) - 3
"""An item of such an array has four bytes."""
_ZERO_PIECE_PAGES = 256


class Kept(IntEnum):
    """What the scratch has of a page; DATA and all above it are 2 + the number of its slot."""

    NOTHING = 0
    ZERO = 1
    DATA = 2


class Scratch:
    """Pages that were changed; safe to use from many threads."""

    def __init__(self, directory: str, page_size: int, bytes_max: int) -> None:
        """Make the file.

        Args:
            directory: where it takes its space.
            bytes_max: of what it may hold.
        Raises:
            HostError: it cannot be made there.
        """
        self.directory = directory
        self.page_size = page_size
        self.bytes_max = bytes_max
        self._slots_max = min(bytes_max // page_size, _SLOTS_MAX)
        self._zeros = bytes(page_size)
        # Protects all that follows, and is held while the file is read and written: a slot that is given up is taken
        # for another page at once. Nothing else is locked under it.
        self._lock = threading.Lock()
        self._file: File = files.unnamed_file(directory)
        self._chunks: dict[int, array[int]] = {}  # by chunk number; CHUNK_PAGES of Kept
        self._zeroed: list[int] = []  # ascending bounds of runs of chunks that are zeros, where there is no array
        self._free = array("I")  # slots that were given up; those from _end on never had a page
        self._end = 0

    def close(self) -> None:
        """Give all of it back."""
        self._file.close()

    @property
    def bytes_used(self) -> int:
        """Of the pages that have slots."""
        return (self._end - len(self._free)) * self.page_size

    def missing_runs(self, page: int, count: int) -> list[tuple[int, int]]:
        """Runs (first page, count) among these pages of which the scratch has nothing."""
        return [(first, number) for first, number, kept in self.runs(page, count) if kept == Kept.NOTHING]

    def runs(self, page: int, count: int) -> Iterator[tuple[int, int, Kept]]:
        """All of these pages in runs (first page, count, what there is of them), ascending; neighbours differ."""
        for kept, group in itertools.groupby(self._pieces(page, count), lambda piece: piece[2]):
            pieces = list(group)
            yield pieces[0][0], sum(number for _, number, _ in pieces), kept

    def lay_over(self, page: int, buffer: memoryview) -> None:
        """Put what there is of the pages from `page` on into a buffer of whole pages, over what that has."""
        with self._lock:
            for first, number in split_at(page, len(buffer) // self.page_size, CHUNK_PAGES):
                at = (first - page) * self.page_size
                self._lay_over_chunk(first, buffer[at : at + number * self.page_size])

    def write(self, page: int, data: Buffer) -> None:
        """Write whole pages.

        Raises:
            NoSpaceError: the scratch has no slots for them; nothing was written.
            HostError: the file cannot be written; some of them may be.
        """
        view = memoryview(data)
        with self._lock:
            self._require_room(page, len(view) // self.page_size)
            for first, number in split_at(page, len(view) // self.page_size, CHUNK_PAGES):
                at = (first - page) * self.page_size
                self._write_in_chunk(first, view[at : at + number * self.page_size])

    def write_part(self, page: int, start: int, data: Buffer, below: Buffer) -> None:
        """Write some bytes of a page, from `start` on.

        Args:
            below: what the page has where the scratch has nothing.
        Raises:
            NoSpaceError, HostError: as `write`.
        """
        with self._lock:
            kept = self._kept(page)
            if kept >= Kept.DATA:
                self._file.pwrite(data, (kept - Kept.DATA) * self.page_size + start)
                return
            whole = bytearray(self._zeros if kept == Kept.ZERO else below)
            whole[start : start + len(data)] = data
            self._require_room(page, 1)
            self._write_in_chunk(page, memoryview(whole))

    def zero(self, page: int, count: int) -> None:
        """Pages read as zeros from now on, and their slots are free."""
        end = page + count
        first_whole, end_whole = -(-page // CHUNK_PAGES), end // CHUNK_PAGES
        parts = [(page, end)]
        if first_whole <= end_whole:
            parts = [(page, first_whole * CHUNK_PAGES), (end_whole * CHUNK_PAGES, end)]
        with self._lock:
            if first_whole < end_whole:
                self._zero_chunks(first_whole, end_whole)
            for start, stop in parts:
                if start < stop:
                    self._zero_in_chunk(start, stop - start)

    def write_zeros(self, page: int, count: int) -> None:
        """Pages read as zeros, and keep slots, so that what is written there later finds room.

        Raises:
            NoSpaceError, HostError: as `write`.
        """
        with self._lock:
            self._require_room(page, count)
        for first, number in split_at(page, count, _ZERO_PIECE_PAGES):
            self.write(first, bytes(number * self.page_size))

    def _pieces(self, page: int, count: int) -> Iterator[tuple[int, int, Kept]]:
        """The same as `runs`, cut at chunks."""
        for first, number in split_at(page, count, CHUNK_PAGES):
            with self._lock:
                chunk = self._chunks.get(first // CHUNK_PAGES)
                kept = self._kept_of_chunk(first // CHUNK_PAGES)
                some = chunk[first % CHUNK_PAGES : first % CHUNK_PAGES + number] if chunk else None
            if some is None:
                yield first, number, kept
                continue
            for each, group in itertools.groupby(min(one, Kept.DATA) for one in some):
                length = sum(1 for _ in group)
                yield first, length, Kept(each)
                first += length

    def _kept(self, page: int) -> int:
        chunk = self._chunks.get(page // CHUNK_PAGES)
        return chunk[page % CHUNK_PAGES] if chunk else self._kept_of_chunk(page // CHUNK_PAGES)

    def _kept_of_chunk(self, number: int) -> Kept:
        """What there is of every page of a chunk without an array."""
        return Kept.ZERO if bisect.bisect_right(self._zeroed, number) % 2 else Kept.NOTHING

    def _chunk(self, number: int) -> array[int]:
        """The array of a chunk, made if there is none."""
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = array("I", [self._kept_of_chunk(number)]) * CHUNK_PAGES
        return chunk

    def _lay_over_chunk(self, page: int, buffer: memoryview) -> None:
        number, size = page // CHUNK_PAGES, self.page_size
        chunk = self._chunks.get(number)
        if chunk is None:
            if self._kept_of_chunk(number) == Kept.ZERO:
                buffer[:] = bytes(len(buffer))
            return
        place = page % CHUNK_PAGES
        for first, length, kept in _stretches(chunk[place : place + len(buffer) // size]):
            part = buffer[first * size : (first + length) * size]
            if kept >= Kept.DATA:
                self._file.pread_into([part], (kept - Kept.DATA) * size)
            elif kept == Kept.ZERO:
                part[:] = bytes(len(part))

    def _require_room(self, page: int, count: int) -> None:
        free = self._slots_max - self._end + len(self._free)
        if count <= free:
            return
        lacking = 0
        for first, number in split_at(page, count, CHUNK_PAGES):
            chunk = self._chunks.get(first // CHUNK_PAGES)
            place = first % CHUNK_PAGES
            held = sum(kept >= Kept.DATA for kept in chunk[place : place + number]) if chunk else 0
            lacking += number - held
        if lacking > free:
            raise NoSpaceError(
                f"the scratch file has as much as it may, {format_bytes(self.bytes_max)}",
                where=self.directory,
                remedy="end the server, and start it again with a larger --scratch-size",
            )

    def _write_in_chunk(self, page: int, data: memoryview) -> None:
        """Write pages of one chunk: first the file, then the map, so that no page has a slot that was not written."""
        place, count, size = page % CHUNK_PAGES, len(data) // self.page_size, self.page_size
        chunk = self._chunks.get(page // CHUNK_PAGES)
        before: Sequence[int] = chunk[place : place + count] if chunk else [Kept.NOTHING] * count
        taken: list[int] = []
        try:
            now = array("I", [kept if kept >= Kept.DATA else self._take(taken) for kept in before])
            for first, length, kept in _stretches(now):
                self._file.pwrite(data[first * size : (first + length) * size], (kept - Kept.DATA) * size)
        except BaseException:
            self._free.extend(slot - Kept.DATA for slot in taken)
            raise
        self._chunk(page // CHUNK_PAGES)[place : place + count] = now

    def _take(self, taken: list[int]) -> int:
        """A slot for a page, noted in `taken`; there is one, as that was checked."""
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._end = self._end, self._end + 1
        taken.append(slot + Kept.DATA)
        return taken[-1]

    def _give_up(self, chunk: Sequence[int]) -> None:
        self._free.extend(kept - Kept.DATA for kept in chunk if kept >= Kept.DATA)

    def _zero_in_chunk(self, page: int, count: int) -> None:
        chunk, place = self._chunk(page // CHUNK_PAGES), page % CHUNK_PAGES
        self._give_up(chunk[place : place + count])
        chunk[place : place + count] = array("I", [Kept.ZERO]) * count

    def _zero_chunks(self, first: int, end: int) -> None:
        few = range(first, end) if end - first < len(self._chunks) else list(self._chunks)
        for number in few:
            if first <= number < end and (chunk := self._chunks.pop(number, None)):
                self._give_up(chunk)
        low, high = bisect.bisect_left(self._zeroed, first), bisect.bisect_right(self._zeroed, end)
        self._zeroed[low:high] = [first] * (low % 2 == 0) + [end] * (high % 2 == 0)


def _stretches(kept: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Runs (place, count, what the first has) of pages with slots that follow each other, or with the same."""
    start = 0
    for place in range(1, len(kept) + 1):
        step = kept[start] >= Kept.DATA
        if place == len(kept) or kept[place] != kept[place - 1] + step:
            yield start, place - start, kept[start]
            start = place
