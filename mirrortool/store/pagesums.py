"""Page sums on disk, and the state sum that they give.

Two sparse files a volume: NAME.sums holds 8 bytes a page at 8 × the page's number in the volume, NAME.segments 8 bytes
a segment: the XOR of the terms of its pages, so that zeroing 100 GiB costs segments, not pages. A hole in either is
zeros: zero pages, and segments without terms.

Rule: written with pwrite, never mapped; only with sums of pages that are in durable frames; and only by one thread.
Rule: after a crash the two files may disagree. `rebuild` computes the segments, and the state sum, from the page sums.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
import operator
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mirrortool import files
from mirrortool.address import pages_per_segment, split_at
from mirrortool.checksum import SUM_BYTES, pack_sums, state_term, unpack_sums
from mirrortool.files import File
from mirrortool.operation import Batch, Kind
from mirrortool.store.flat import page_runs
from mirrortool.volume import Volume, VolumeSet

_REBUILD_PAGES = 1 << 16
_PROVED_SEGMENTS = 1 << 12


@dataclass(frozen=True, slots=True)
class Proof:
    """What the page sums give.

    Attributes:
        contradicted: names of volumes with segments that are not those of their page sums.
    """

    state_sum: int
    contradicted: Sequence[str]


def copy_sums(source: str, target: str, names: Iterable[str]) -> None:
    """Make a directory hold the tables of these volumes that another one has, durably, and no others; holes stay holes.

    Repeated after a crash, it does the same. No other process has the tables open for writing.
    """
    kept = [f"{name}.{kind}" for name in names for kind in ("sums", "segments")]
    for name in set(files.list_directory(target)) - set(kept):
        files.remove(files.join(target, name))
    for name in kept:
        with _open(source, name, write=False) as table, files.make_file(files.join(target, name)) as copy:
            files.copy_range(table, copy, 0, table.size())
            copy.truncate(table.size())
            copy.fdatasync()
    files.sync_directory(target)


class PageSums:
    """The sums of a set of volumes as of one position, and their state sum.

    Attributes:
        volumes: with their sizes as of that position.
        state_sum: of all volumes; as the caller gave it, plus what was applied since.
    """

    def __init__(self, directory: str, volumes: VolumeSet, state_sum: int, *, write: bool) -> None:
        self.volumes = volumes
        self.page_size = volumes.page_size
        self.state_sum = state_sum
        self._segment_pages = pages_per_segment(self.page_size)
        self._sums: dict[str, File] = {}
        self._segments: dict[str, File] = {}
        try:
            for volume in volumes:
                self._sums[volume.name] = _open(directory, f"{volume.name}.sums", write)
                self._segments[volume.name] = _open(directory, f"{volume.name}.segments", write)
            if write:
                files.sync_directory(directory)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in (*self._sums.values(), *self._segments.values()):
            file.close()

    def read(self, page: int, count: int) -> bytes:
        """Packed sums of pages inside one volume."""
        volume, first = self._locate(page)
        return self._read(volume, first, count)

    def nonzero_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        """Runs (first page, count) among these pages that may have sums; sparse regions cost nothing."""
        if not count:
            return  # an empty volume has no page to begin at
        volume, first = self._locate(page)
        offset = page - first
        extents = self._sums[volume.name].data_extents(first * SUM_BYTES, (first + count) * SUM_BYTES)
        for start, end in page_runs(extents, SUM_BYTES):
            yield offset + start, end - start

    def apply(self, changes: Mapping[int, int]) -> None:
        """Take in new sums, by page; 0 for pages that became zero."""
        pages, step = sorted(changes), self._segment_pages
        begin = 0
        while begin < len(pages):
            end = bisect.bisect_left(pages, pages[begin] - pages[begin] % step + step, begin)
            self._apply_in_segment(pages[begin:end], changes)
            begin = end

    def apply_batch(self, batch: Batch) -> None:
        """Take in a batch's operations, in order; its payload is not needed."""
        written, changes, done = unpack_sums(batch.sums), dict[int, int](), 0
        for kind, page, count in zip(batch.kinds, batch.pages, batch.counts, strict=True):
            if kind == Kind.WRITE:
                changes.update(zip(range(page, page + count), written[done : done + count], strict=True))
                done += count
            elif kind in (Kind.ZERO, Kind.RESIZE):
                self.apply(changes)
                changes = {}
                self._apply_inline(Kind(kind), page, count)
        self.apply(changes)

    def term_of(self, page: int, count: int) -> int:
        """What these pages, inside one volume, add to the state sum."""
        term = 0
        for first, number in self._allocated_pieces(page, count):
            term ^= self._term_in_segment(first, number)
        return term

    def zero(self, page: int, count: int) -> None:
        """Pages became zero; costs what is allocated of them, by the segment where a whole one goes."""
        for first, number in list(self._allocated_pieces(page, count)):
            volume, place = self._locate(first)
            term = self._term_in_segment(first, number)
            self._sums[volume.name].punch(place * SUM_BYTES, number * SUM_BYTES)
            self._add_term(volume, place // self._segment_pages, term)

    def resize(self, name: str, size: int) -> None:
        """A volume got a new size; pages from the one that holds a smaller end on became zeros."""
        volume = self.volumes[name]
        first, end = size // self.page_size, self.volumes.page_count(volume)
        # A larger end in the same page leaves that page as it is: after the old end it reads as zeros already.
        if size < volume.size and first < end:
            self.zero(self.volumes.first_page(volume) + first, end - first)
        self.volumes = self.volumes.resized(volume, size)
        self.state_sum ^= volume.term ^ self.volumes[name].term

    def path_of(self, page: int) -> str:
        """The file that holds the sum of a page."""
        return self._sums[self._locate(page)[0].name].path

    def is_segment_right(self, page: int) -> bool:
        """Whether the sums of a page's segment still give the segment's term: sums rot on a disk as all else does."""
        volume, place = self._locate(page)
        first = place - place % self._segment_pages
        count = min(self._segment_pages, self.volumes.page_count(volume) - first)
        start = page - place + first
        term = 0
        if any(True for _ in self.nonzero_runs(start, count)):  # sparse regions cost nothing
            term = state_term(range(start, start + count), unpack_sums(self._read(volume, first, count)))
        return term == self._segment_term(volume, first // self._segment_pages)

    def rebuild(self) -> None:
        """Compute segments and state sum from the page sums; costs what is allocated."""
        self.state_sum = 0
        for volume in self.volumes:
            self._segments[volume.name].truncate(0)
            self.state_sum ^= volume.term
            for page, sums in self._all(volume):
                self._add_terms(volume, page, sums)

    def compute_state_sum(self) -> int:
        """The state sum from the page sums alone; nothing is written."""
        return self.prove().state_sum

    def prove(self) -> Proof:
        """The state sum from the page sums alone, and where the segments contradict them; nothing is written."""
        state_sum, contradicted = 0, []
        for volume in self.volumes:
            state_sum ^= volume.term
            is_right = True
            for segment, terms in self._terms(volume):
                state_sum ^= functools.reduce(operator.xor, terms, 0)
                stored = self._segments[volume.name].pread(len(terms) * SUM_BYTES, segment * SUM_BYTES)
                is_right &= stored.ljust(len(terms) * SUM_BYTES, b"\0") == pack_sums(terms)
            if not is_right:
                contradicted.append(volume.name)
        return Proof(state_sum, contradicted)

    def is_like(self, other: PageSums, volume: Volume) -> bool:
        """Whether another table has the same sums of a volume's pages."""
        first, count = self.volumes.first_page(volume), self.volumes.page_count(volume)
        places = (run for table in (self, other) for run in table.nonzero_runs(first, count))
        pieces = (piece for run in places for piece in split_at(*run, _REBUILD_PAGES))
        return all(self.read(page, number) == other.read(page, number) for page, number in pieces)

    def sums_path(self, name: str) -> str:
        """The file with the page sums of a volume."""
        return self._sums[name].path

    def segments_path(self, name: str) -> str:
        """The file with the terms of a volume's segments."""
        return self._segments[name].path

    def sync(self) -> None:
        for file in (*self._sums.values(), *self._segments.values()):
            file.fdatasync()

    def _apply_inline(self, kind: Kind, page: int, count: int) -> None:
        if kind == Kind.ZERO:
            self.zero(page, count)
            return
        volume = self.volumes.starting_at(page)
        assert volume is not None, "checked where the operation was decoded"
        self.resize(volume.name, count)

    def _apply_in_segment(self, pages: list[int], changes: Mapping[int, int]) -> None:
        volume, first = self._locate(pages[0])
        table = unpack_sums(self._read(volume, first, pages[-1] - pages[0] + 1))
        new = list(map(changes.__getitem__, pages))
        if len(pages) == len(table):
            old: Sequence[int] = table
            table = array("Q", new)
        else:
            places = [page - pages[0] for page in pages]
            old = list(map(table.__getitem__, places))
            for place, page_sum in zip(places, new, strict=True):
                table[place] = page_sum
        self._write(volume, first, table)
        self._add_term(volume, first // self._segment_pages, state_term(pages, old) ^ state_term(pages, new))

    def _allocated_pieces(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        """What may not be zero among these pages, cut at segments; a segment that lies inside them comes whole."""
        done, end, step = page, page + count, self._segment_pages
        for run, length in self.nonzero_runs(page, count):
            start = max(done, run - run % step)
            done = min(end, run + length + -(run + length) % step)
            yield from split_at(start, done - start, step)

    def _term_in_segment(self, page: int, count: int) -> int:
        volume, first = self._locate(page)
        if count == self._segment_pages:
            return self._segment_term(volume, first // self._segment_pages)
        return state_term(range(page, page + count), unpack_sums(self._read(volume, first, count)))

    def _segment_term(self, volume: Volume, segment: int) -> int:
        return int.from_bytes(self._segments[volume.name].pread(SUM_BYTES, segment * SUM_BYTES), "big")

    def _add_term(self, volume: Volume, segment: int, term: int) -> None:
        if term:
            self.state_sum ^= term
            both = term ^ self._segment_term(volume, segment)
            self._segments[volume.name].pwrite(both.to_bytes(SUM_BYTES, "big"), segment * SUM_BYTES)

    def _add_terms(self, volume: Volume, page: int, sums: array[int]) -> None:
        first = page - self.volumes.first_page(volume)
        for start, number in split_at(first, len(sums), self._segment_pages):
            part = sums[start - first : start - first + number]
            pages = range(page + start - first, page + start - first + number)
            self._add_term(volume, start // self._segment_pages, state_term(pages, part))

    def _terms(self, volume: Volume) -> Iterator[tuple[int, list[int]]]:
        """The terms that the page sums give, of some segments at a time: the first one's number, and theirs.

        Segments that have neither sums nor a term are left out.
        """
        first_page, pages = self.volumes.first_page(volume), self.volumes.page_count(volume)
        step = self._segment_pages
        allocated = (split_at(start, end - start, _PROVED_SEGMENTS) for start, end in self._allocated_segments(volume))
        for segment, count in itertools.chain.from_iterable(allocated):
            terms = [0] * count
            first = segment * step
            for run, length in self.nonzero_runs(first_page + first, min(count * step, pages - first)):
                for place, number in split_at(run - first_page, length, step):
                    page_numbers = range(first_page + place, first_page + place + number)
                    term = state_term(page_numbers, unpack_sums(self._read(volume, place, number)))
                    terms[place // step - segment] ^= term
            yield segment, terms

    def _allocated_segments(self, volume: Volume) -> Iterator[tuple[int, int]]:
        """Runs (first segment, one past the last) that may have sums or a term, in order; holes cost nothing."""
        first_page, pages = self.volumes.first_page(volume), self.volumes.page_count(volume)
        step, total = self._segment_pages, -(-pages // self._segment_pages)
        runs = ((run - first_page, run - first_page + length) for run, length in self.nonzero_runs(first_page, pages))
        by_sums = ((start // step, -(-end // step)) for start, end in runs)
        by_terms = page_runs(self._segments[volume.name].data_extents(0, total * SUM_BYTES), SUM_BYTES)
        done = 0
        for start, end in heapq.merge(by_sums, by_terms):
            start, end = max(start, done), min(end, total)
            if start < end:
                yield start, end
                done = end

    def _all(self, volume: Volume) -> Iterator[tuple[int, array[int]]]:
        """All sums that may not be zero, in pieces of bounded size."""
        first_page = self.volumes.first_page(volume)
        for run, length in self.nonzero_runs(first_page, self.volumes.page_count(volume)):
            for page, number in split_at(run, length, _REBUILD_PAGES):
                yield page, unpack_sums(self._read(volume, page - first_page, number))

    def _read(self, volume: Volume, first: int, count: int) -> bytes:
        length = count * SUM_BYTES
        return self._sums[volume.name].pread(length, first * SUM_BYTES).ljust(length, b"\0")

    def _write(self, volume: Volume, first: int, sums: Iterable[int]) -> None:
        self._sums[volume.name].pwrite(pack_sums(sums), first * SUM_BYTES)

    def _locate(self, page: int) -> tuple[Volume, int]:
        volume = self.volumes.find(page)
        assert volume is not None, "checked where the operation was decoded"
        return volume, page - self.volumes.first_page(volume)


def _open(directory: str, name: str, write: bool) -> File:
    return files.open_file(files.join(directory, name), write=write, create=write)
