"""What differs between two commits of a journal: the pages that operations between them touched, or, of these, those
whose sums are not the same.

Either commit may be the earlier one. Of the operations only the columns are read, from index files where there are
some; what pages hold is not read.
Bound: as two views, and the runs of pages that were touched, merged (store/pageruns.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from mirrortool.address import pages_in, split_at
from mirrortool.checksum import unpack_sums
from mirrortool.errors import UsageError
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn
from mirrortool.operation import Kind
from mirrortool.points.indexfile import parts_of_file
from mirrortool.points.indexpart import IndexPart
from mirrortool.points.origin import files_between
from mirrortool.points.view import PointView
from mirrortool.store.pageruns import RunCollector
from mirrortool.store.parallelread import Run
from mirrortool.volume import Volume

_COMPARED_PAGES = 1 << 14


class DiffCancelled(Exception):
    """`cancel` was called."""


@dataclass(frozen=True, slots=True)
class DiffRange:
    """Bytes of a volume.

    Attributes:
        is_zero: whether all of them are zeros at the second commit.
    """

    offset: int
    length: int
    is_zero: bool


@dataclass(frozen=True, slots=True)
class DiffProgress:
    """A comparison at one moment.

    Attributes:
        lsn: operations were read up to here.
        pages, pages_total: that were compared, and that will be; 0 until all operations were read.
    """

    lsn: Lsn
    pages: int = 0
    pages_total: int = 0


class Diff:
    """A comparison of one volume at two commits. `run` it once, in one thread; the views belong to the caller.

    Attributes:
        first, second: the views.
        old, new: the volume at the first commit, and at the second.
    """

    def __init__(self, journal: Journal, first: PointView, second: PointView, name: str, *, touched: bool) -> None:
        """
        Args:
            touched: find all that was touched, also where the same was written again.
        Raises:
            UsageError: there is no such volume.
        """
        if name not in second.volumes:
            known = ", ".join(volume.name for volume in second.volumes)
            raise UsageError(f"the journal has no volume {name}", where=journal.path, remedy=f"its volumes: {known}")
        self.old, self.new = first.volumes[name], second.volumes[name]
        self._journal, self.first, self.second = journal, first, second
        self._touched = touched
        self._earlier, self._later = sorted((first, second), key=lambda view: view.commit.lsn)
        self._is_cancelled = False
        self._progress = DiffProgress(self._earlier.commit.lsn)

    @property
    def last_lsn(self) -> Lsn:
        """Of the later commit."""
        return self._later.commit.lsn

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True

    def progress(self) -> DiffProgress:
        """How far it is; from any thread."""
        return self._progress

    def run(self) -> list[DiffRange]:
        """The ranges, ascending; none meets the next, unless only one of them is zeros.

        Raises:
            DiffCancelled: after `cancel`.
            JournalError: the journal is damaged between the commits.
        """
        runs = [run for run in map(self._inside, self._touched_runs()) if run[1] > 0]
        self._progress = DiffProgress(self.last_lsn, 0, sum(count for _, count in runs))
        found: list[DiffRange] = []
        for first, count in runs:
            for piece in split_at(first, count, _COMPARED_PAGES):
                for each in self._differing(*piece):
                    _add(found, each)
                self._count(piece[1])
        return found

    def _touched_runs(self) -> list[Run]:
        """Runs of pages of the volume that an operation between the commits touched, ascending and disjoint."""
        collector = _Touched(self._earlier.volumes[self.new.name], self.second.page_size)
        after, last = self._earlier.commit.lsn, self._later.commit.lsn
        starts = files_between(self._journal.file_starts(), after, last)
        for number, start in enumerate(starts):
            end = min(last, starts[number + 1] - 1) if number + 1 < len(starts) else last
            with JournalReader(self._journal, first_lsn=start) as reader:
                position = reader.position
            for part in parts_of_file(self._journal, position, Lsn(end), self._on_read):
                collector.add(part, after, last)
                self._progress = DiffProgress(Lsn(min(part.end.lsn, last)))
                self._on_read(0)
        return collector.merged()

    def _inside(self, run: Run) -> Run:
        """The pages of a run that the volume has at the second commit; the count may be below 1."""
        end = self.second.volumes.first_page(self.new) + self.second.volumes.page_count(self.new)
        return run[0], min(run[1], end - run[0])

    def _differing(self, page: int, count: int) -> Iterator[DiffRange]:
        new = unpack_sums(self.second.sums_of(page, count))
        old = None if self._touched else unpack_sums(self.first.sums_of(page, count))
        at = page
        for (differs, is_zero), members in groupby(
            (old is None or old[number] != each, not each) for number, each in enumerate(new)
        ):
            number = sum(1 for _ in members)
            if differs:
                yield self._range(at, number, is_zero)
            at += number

    def _range(self, page: int, count: int, is_zero: bool) -> DiffRange:
        size = self.second.page_size
        offset = page * size - self.new.start
        return DiffRange(offset, min(count * size, self.new.size - offset), is_zero)

    def _count(self, pages: int) -> None:
        now = self._progress
        self._progress = DiffProgress(now.lsn, now.pages + pages, now.pages_total)
        self._on_read(0)

    def _on_read(self, _bytes: int) -> None:
        if self._is_cancelled:
            raise DiffCancelled


class _Touched:
    """Collects the pages of one volume that operations touch, in the order of the journal."""

    def __init__(self, volume: Volume, page_size: int) -> None:
        """
        Args:
            volume: with its size before the first operation.
        """
        self._page_size = page_size
        self._first = volume.start // page_size
        self._size = volume.size
        self._runs = RunCollector()

    def add(self, part: IndexPart, after: Lsn, last: Lsn) -> None:
        """Take in the operations of a part with LSNs after one, up to another."""
        skipped, end = max(0, after - part.start.lsn), last - part.start.lsn
        rows = zip(part.kinds[skipped:end], part.pages[skipped:end], part.counts[skipped:end], strict=True)
        add: Callable[[Run], None] = self._runs.add
        first, stop = self._bounds()
        for kind, page, count in rows:
            if kind >= Kind.COMMIT:
                continue
            if kind == Kind.RESIZE:
                if page == first:
                    self._resize(count)
                    stop = self._bounds()[1]
            elif first <= page < stop:
                add((page, count))

    def merged(self) -> list[Run]:
        return self._runs.merged()

    def _bounds(self) -> Run:
        return self._first, self._first + pages_in(self._size, self._page_size)

    def _resize(self, size: int) -> None:
        """From the page that holds a smaller end on all becomes zeros."""
        first, end = size // self._page_size, pages_in(self._size, self._page_size)
        if size < self._size and first < end:
            self._runs.add((self._first + first, end - first))
        self._size = size


def _add(found: list[DiffRange], following: DiffRange) -> None:
    """Append a range, or let the last one grow by it."""
    if found:
        last = found[-1]
        if (last.offset + last.length, last.is_zero) == (following.offset, following.is_zero):
            found[-1] = DiffRange(last.offset, last.length + following.length, last.is_zero)
            return
    found.append(following)
