"""A journal at one commit, as volumes to be read: nothing is copied, and the journal may grow meanwhile.

    page -> place        pagemap.py: which of all pages that were written since the origin is its newest content
    place -> frame       of each part of an index, a table of its frames (tables.py)
    frame -> bytes       frames.py
    no place             the page is as the origin has it: in the base (basepages.py), or zeros

Opening applies the operations between the origin and the commit, from index files where there are some; everything
else is read when it is asked for.

Rule: a view is of a commit that is a state of the primary; of a fuzzy one only if the caller says so.
Rule: what is read is held (journal/holds.py), where the journal can be written.
Bound: pagemap.py, tables.py, frames.py and basepages.py say theirs; a part of an index while it is applied.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Self

from mirrortool import files
from mirrortool.checksum import SUM_BYTES, unpack_sums
from mirrortool.errors import (
    CorruptJournalError,
    ForkedJournalError,
    FuzzyCommitError,
    HostError,
    NotComparableError,
)
from mirrortool.files import File
from mirrortool.journal.commits import Commit
from mirrortool.journal.directory import Journal
from mirrortool.journal.journalfile import COPY_AGAIN, corrupt
from mirrortool.journal.point import Until
from mirrortool.journal.pointlookup import check_none_hidden, require_commit
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn
from mirrortool.operation import CommitKind, Kind
from mirrortool.points.basepages import BASE_KEY, BasePages
from mirrortool.points.frames import DamagedPagesError, FrameReader, StoredFrame
from mirrortool.points.indexfile import parts_of_base, parts_of_file
from mirrortool.points.indexpart import IndexPart
from mirrortool.points.origin import Origin, open_origin
from mirrortool.points.pagemap import FIRST_PLACE, UNTOUCHED, OutsideError, PageMap
from mirrortool.points.tables import TablePlace, TableStore
from mirrortool.volume import VolumeSet

OnProgress = Callable[[int, int], None]
"""Called with the bytes that were read to open a view, and how many there are at most."""


def open_point(
    journal: Journal,
    until: Until | None,
    *,
    allow_fuzzy: bool = False,
    on_progress: OnProgress | None = None,
    doing: str = "read",
) -> PointView:
    """The volumes as of the last commit at or before a point, by default the newest.

    Args:
        allow_fuzzy: also of a commit during which a volume was changed outside.
        on_progress: called in this thread while files without an index are read; it may raise, and end that.
        doing: what the hold says that this process does.
    Raises:
        UsageError: the journal does not have that point.
        NotComparableError: it has, but no commit yet; or the commit is incomplete.
        FuzzyCommitError: the commit is fuzzy.
        JournalError: the journal is damaged before it, or was pruned beyond it.
    """
    commit = require_commit(journal, until)
    check_none_hidden(journal, commit, until)
    check_is_state(journal, commit, allow_fuzzy=allow_fuzzy)
    with ExitStack() as opening:
        origin, why_not_held = open_origin(journal, commit, doing, opening)
        view = PointView(journal, commit, origin, why_not_held, opening)
        view.load(on_progress or (lambda _done, _total: None))
    return view


def check_is_state(journal: Journal, commit: Commit, *, allow_fuzzy: bool) -> None:
    """A commit is a state of the primary.

    Raises:
        NotComparableError: it is incomplete.
        FuzzyCommitError: it is fuzzy, and that is not allowed.
    """
    if commit.kind == CommitKind.INCOMPLETE:
        raise NotComparableError(
            f"the commit at LSN {commit.lsn} is incomplete: the journal does not have all of the volumes yet",
            where=journal.path,
            remedy="name a commit of another kind; mirrortool log lists them",
        )
    if commit.kind == CommitKind.FUZZY and not allow_fuzzy:
        raise FuzzyCommitError(
            f"the commit at LSN {commit.lsn} is fuzzy: a volume changed while it was scanned",
            where=journal.path,
            remedy="name an earlier commit, or give --allow-fuzzy",
        )


class PointView:
    """The volumes at one commit; a PageReader. `with` gives back what it holds.

    `read_into`, `sum_of`, `sums_of` and `data_runs` may be called from any thread.

    Attributes:
        commit: what it is of.
        volumes: with their sizes at that commit.
        why_not_held: why nothing keeps prune from removing what is read; None if the view holds it.
    """

    def __init__(
        self, journal: Journal, commit: Commit, origin: Origin, why_not_held: HostError | None, opened: ExitStack
    ) -> None:
        """Nothing is loaded yet; `opened` has the base and the hold, and is this view's after `load`."""
        self.commit, self.why_not_held = commit, why_not_held
        self.page_size = journal.page_size
        self.volumes: VolumeSet = origin.volumes
        self._journal, self._origin = journal, origin
        self._opened = opened
        self._temporary: str | None = None
        self._tables = opened.enter_context(closing(TableStore(self._directory)))
        is_empty = origin.base is None
        self._map = opened.enter_context(closing(PageMap(origin.volumes, self._directory, is_empty=is_empty)))
        self._reader = opened.enter_context(closing(FrameReader(self.page_size, self._open_file, self._directory)))
        self._base = BasePages(origin.base.path, self._reader, self._tables) if origin.base else None
        self._durable: set[int] = set()  # keys of files that were opened, and made durable then
        self._next_place = FIRST_PLACE
        self._first_places: list[int] = []  # of each part
        self._parts: list[tuple[Lsn, TablePlace]] = []  # its journal file, and its table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the hold, and close everything; calling it again does nothing."""
        self._opened.close()

    def load(self, on_progress: OnProgress) -> None:
        """Apply everything up to the commit; once.

        Raises:
            JournalError: the journal is damaged before that.
        """
        progress = _Progress(self._journal, self._origin, on_progress)
        if self._origin.base:
            for part in parts_of_base(self._journal, self._origin.base, progress.add):
                assert self._base
                self._base.add(part)
        starts = self._origin.file_starts
        positions = list(map(self._start_of, starts))
        if positions and positions[0].lsn == self._origin.position.lsn and positions[0] != self._origin.position:
            raise self._forked(self._origin.position)
        ends = [*(following.lsn for following in positions[1:]), self.commit.lsn][: len(positions)]
        for number, (start, end) in enumerate(zip(positions, ends, strict=True)):
            position = start
            for part in parts_of_file(self._journal, start, end, progress.add):
                self._apply(part, start.next_lsn)
                position = part.end
            if number + 1 < len(positions) and position != positions[number + 1]:
                what = f"does not continue the file before it, which ends at {position}"
                raise CorruptJournalError(what, where=self._journal.file_path(starts[number + 1]), remedy=COPY_AGAIN)
        self._map.freeze()
        self.volumes = self._map.volumes
        self._opened = self._opened.pop_all()

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        """Fill buffers of whole pages, all of one volume; what is after the end of the volume reads as zeros.

        Raises:
            JournalError: what the journal has of them is damaged, or gone.
        """
        size = self.page_size
        views = [buffer[at : at + size] for buffer in buffers for at in range(0, len(buffer), size)]
        for first, places in self._map.pieces(page, len(views)):
            done = first - page
            for start, end in _runs(places):
                part = views[done + start : done + end]
                if places[start] >= FIRST_PLACE:
                    self._read_places(places[start], part)
                else:
                    _clear(part)
                    if places[start] == UNTOUCHED:
                        self._read_base(first + start, part)
        self._clear_end(page, views)

    def sum_of(self, page: int) -> int:
        """The sum of a page."""
        return unpack_sums(self.sums_of(page, 1))[0]

    def sums_of(self, page: int, count: int) -> bytes:
        """The sums of pages of one volume, packed.

        Raises:
            JournalError: the base is damaged.
        """
        found = bytearray(count * SUM_BYTES)
        for first, places in self._map.pieces(page, count):
            for start, end in _runs(places):
                if places[start] >= FIRST_PLACE:
                    self._put_sums(found, first + start - page, places[start], end - start)
                elif places[start] == UNTOUCHED:
                    self._put_base_sums(found, page, first + start, first + end)
        return bytes(found)

    def data_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        """Runs (first page, count), ascending, among these pages of one volume that are not zeros.

        Raises:
            JournalError: the base is damaged.
        """
        begun, length = page, 0
        for first, number in self._runs_with_data(page, page + count):
            if begun + length == first:
                length += number
                continue
            if length:
                yield begun, length
            begun, length = first, number
        if length:
            yield begun, length

    def _runs_with_data(self, page: int, end: int) -> Iterator[tuple[int, int]]:
        """The same, where some may meet."""
        done = page
        for first, count in self._map.chunks(page, end - page):
            yield from self._base_runs(done, first)
            for piece, places in self._map.pieces(first, count):
                for start, stop in _runs(places):
                    if places[start] >= FIRST_PLACE:
                        yield piece + start, stop - start
                    elif places[start] == UNTOUCHED:
                        yield from self._base_runs(piece + start, piece + stop)
            done = first + count
        yield from self._base_runs(done, end)

    def _base_runs(self, page: int, end: int) -> Iterator[tuple[int, int]]:
        """What the base has of untouched pages."""
        if self._base:
            for start, stop in self._not_zeroed(page, end):
                for held in self._base.runs(start, stop):
                    yield held.page, held.count

    def _read_places(self, place: int, views: Sequence[memoryview]) -> None:
        """Pages that follow each other in the order in which they were written, in any number of frames."""
        done = 0
        while done < len(views):
            frame, number, sums = self._frame_at(place + done, len(views) - done)
            end = done + len(sums) // SUM_BYTES
            try:
                self._reader.read(frame, number, views[done:end], sums)
            except DamagedPagesError:
                raise self._damage(frame) from None
            done = end

    def _put_sums(self, found: bytearray, at: int, place: int, count: int) -> None:
        """Put the sums of pages that follow each other in the order in which they were written, the first at `at`."""
        while count:
            part = bisect.bisect_right(self._first_places, place) - 1
            table, number = self._tables.get(self._parts[part][1]), place - self._first_places[part]
            sums = table.sums[number * SUM_BYTES : (number + count) * SUM_BYTES]
            found[at * SUM_BYTES : at * SUM_BYTES + len(sums)] = sums
            done = len(sums) // SUM_BYTES
            at, place, count = at + done, place + done, count - done

    def _read_base(self, page: int, views: Sequence[memoryview]) -> None:
        """Pages that are as they were at the origin, over zeros."""
        if self._base is None:
            return
        for first, end in self._not_zeroed(page, page + len(views)):
            for held in self._base.runs(first, end):
                part = views[held.page - page : held.page - page + held.count]
                try:
                    self._reader.read(held.frame, held.number, part, held.sums)
                except DamagedPagesError:
                    raise self._base.damage(held.frame) from None

    def _put_base_sums(self, known: bytearray, origin: int, first: int, end: int) -> None:
        """Put the sums that the base has of these pages into a buffer that begins with the page `origin`."""
        if self._base is None:
            return
        for start, stop in self._not_zeroed(first, end):
            for held in self._base.runs(start, stop):
                at = (held.page - origin) * SUM_BYTES
                known[at : at + len(held.sums)] = held.sums

    def _not_zeroed(self, page: int, end: int) -> Iterator[tuple[int, int]]:
        """Of untouched pages, those that no ZERO of whole chunks covers: first, one past the last."""
        while page < end:
            page = self._map.zeroed_until(page)
            stop = self._map.next_zeroed(page, end)
            if page < stop:
                yield page, stop
            page = stop

    def _frame_at(self, place: int, count: int) -> tuple[StoredFrame, int, bytes]:
        """The frame that has a place, the number of the page in it, and the sums of it and of those that follow there.

        Args:
            count: how many sums are wanted at most.
        """
        part = bisect.bisect_right(self._first_places, place) - 1
        key, kept = self._parts[part]
        table = self._tables.get(kept)
        frames, number = table.frames, place - self._first_places[part]
        row = bisect.bisect_right(frames.firsts, number) - 1
        offset, first, pages = frames.offsets[row], frames.firsts[row], frames.counts[row]
        frame = StoredFrame(key, offset, offset + frames.heads[row], frames.stored[row], frames.codecs[row], pages)
        end = min(number + count, first + pages)
        return frame, number - first, table.sums[number * SUM_BYTES : end * SUM_BYTES]

    def _clear_end(self, page: int, views: Sequence[memoryview]) -> None:
        volume = self.volumes.find(page)
        assert volume is not None, "the caller asks for pages of a volume"
        inside = volume.start + volume.size - page * self.page_size
        for number in range(max(0, inside // self.page_size), len(views)):
            kept = max(0, inside - number * self.page_size)
            if kept < self.page_size:
                views[number][kept:] = bytes(self.page_size - kept)

    def _apply(self, part: IndexPart, file_first_lsn: Lsn) -> None:
        """Take in what a part has after the origin and up to the commit."""
        skipped = max(0, self._origin.position.lsn - part.start.lsn)
        wanted = min(len(part.kinds), self.commit.lsn - part.start.lsn)
        self._check_passes(part, self._origin.position)
        self._check_passes(part, self.commit.position)
        if skipped >= wanted:
            return
        self._first_places.append(self._next_place)
        self._parts.append((file_first_lsn, self._tables.put(part)))
        sums = unpack_sums(part.sums)
        rows = part.kinds, part.pages, part.counts
        first = 0
        if skipped or wanted < len(part.kinds):
            first = sum(count for kind, count in zip(rows[0][:skipped], rows[2], strict=False) if kind == Kind.WRITE)
            rows = rows[0][skipped:wanted], rows[1][skipped:wanted], rows[2][skipped:wanted]
        try:
            self._map.apply(*rows, sums[first:] if first else sums, self._next_place + first)
        except OutsideError:
            raise CorruptJournalError(
                f"an operation in LSN {part.start.next_lsn}-{part.end.lsn} lies outside the volumes",
                where=self._journal.path,
                remedy="do not trust this journal",
            ) from None
        self._next_place += part.page_count

    def _check_passes(self, part: IndexPart, position: Position) -> None:
        """A part that has the LSN of a position has the position, too.

        Raises:
            ForkedJournalError: it does not.
        """
        if not part.start.lsn < position.lsn <= part.end.lsn:
            return
        ends = list(itertools.accumulate(part.frames.operations, initial=int(part.start.lsn)))[1:]
        number = bisect.bisect_left(ends, position.lsn)
        if (ends[number], part.frames.marks[number]) != (position.lsn, position.chain):
            raise self._forked(position)

    def _forked(self, position: Position) -> ForkedJournalError:
        return ForkedJournalError(
            f"does not contain position {position}",
            where=self._journal.path,
            remedy="if it was promoted meanwhile, try again; else one of its files is of another history",
        )

    def _start_of(self, first_lsn: Lsn) -> Position:
        """Where a journal file begins, which is checked to be one of this journal's history."""
        with JournalReader(self._journal, first_lsn=first_lsn) as reader:
            return reader.position

    def _open_file(self, key: int) -> File:
        """A file that is read, with what is in it durable."""
        if key == BASE_KEY:
            assert self._origin.base
            return files.open_file(self._origin.base.path)
        try:
            file = files.open_file(self._journal.file_path(Lsn(key)))
        except HostError:
            self._start_of(Lsn(key))  # says what it means, if the file is gone
            raise
        try:
            if key not in self._durable:
                file.fdatasync()
                self._durable.add(key)
        except BaseException:
            file.close()
            raise
        return file

    def _damage(self, frame: StoredFrame) -> CorruptJournalError:
        """The error for a frame with pages that cannot be read as they were when they were indexed.

        Raises:
            JournalError: what a reader of the journal finds there, if it finds anything.
        """
        first_lsn = Lsn(frame.key)
        with JournalReader(self._journal, first_lsn=first_lsn) as reader:
            while reader.file_first_lsn == first_lsn and reader.offset <= frame.offset and reader.next_header():
                reader.batch()
            lsn = reader.position.lsn
        JournalReader(Journal(self._journal.path), self.commit.position).close()  # of a promotion that dropped it
        return corrupt(self._journal.file_path(first_lsn), frame.offset, lsn, "pages do not have their sums")

    def _directory(self) -> str:
        """The directory for temporary files, made at the first call."""
        if self._temporary is None:
            self._temporary = self._opened.enter_context(files.temporary_directory())
        return self._temporary


class _Progress:
    """Counts what is read."""

    def __init__(self, journal: Journal, origin: Origin, on_progress: OnProgress) -> None:
        found = [files.find_facts(journal.file_path(start)) for start in origin.file_starts]
        self._total = sum(facts.size for facts in found if facts) + (origin.base.size if origin.base else 0)
        self._done = 0
        self._on_progress = on_progress

    def add(self, count: int) -> None:
        self._done += count
        self._on_progress(self._done, self._total)


def _runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Stretches of places that follow each other, or that are all untouched or all zeroed: start and end."""
    start = 0
    while start < len(places):
        place, end = places[start], start + 1
        step = 1 if place >= FIRST_PLACE else 0
        while end < len(places) and places[end] == place + (end - start) * step:
            end += 1
        yield start, end
        start = end


def _clear(views: Sequence[memoryview]) -> None:
    for view in views:
        view[:] = bytes(len(view))
