"""Scan: compares volumes with the sums and journals what differs, as captured frames under one commit.

The first scan of a volume (an empty table is all zeros), the resync, and the capture for users who cannot put NBD in
between, are this one comparison. Holes with zero sums are skipped without being read.

Rule: sums reach the disk only after the frames that gave them are durable.
Rule: the commit says what it is: `fuzzy` if a volume changed while it was read, so that pages are of different times.
A file in memory (tmpfs, ramfs) has no times that tell of each store: there it is read again, and must be as it was.
Bound: a piece for each thread, and PENDING_PAGES sums.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby, takewhile

from mirrortool.address import adjacent_runs
from mirrortool.checksum import SUM_BYTES, Buffer, state_term, unpack_sums
from mirrortool.errors import CorruptJournalError, MirrortoolError, UnusableVolumeError
from mirrortool.journal.codec import compress
from mirrortool.journal.description import NextScan
from mirrortool.journal.position import Position
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.lifecycle import Opened
from mirrortool.operation import Batch, BatchBuilder, CommitKind
from mirrortool.record.damagedsegments import SegmentCheck
from mirrortool.record.missingsegments import forget_noted
from mirrortool.record.recovery import OpenJournal
from mirrortool.record.scansources import Source, check_apart, check_identity, open_source, paths_of
from mirrortool.record.sizechange import check_room, cut_off, size_change
from mirrortool.record.volumeidentity import check_not_emptied
from mirrortool.store.parallelread import PieceReader, for_each_piece, pieces
from mirrortool.volume import Volume

PENDING_PAGES = 1 << 16


class ScanCancelled(Exception):
    """The scan was told to stop; what it found is in the journal, without a commit."""


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """A scan at one moment: numbers of pages, and bytes in the journal."""

    pages_total: int
    pages_done: int
    pages_written: int
    pages_zeroed: int
    bytes_journaled: int


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan did.

    Attributes:
        commit: its position.
        kind: SCAN or FUZZY.
        changed: why the commit is fuzzy, by volume.
        torn: where recovery moved a torn tail, None if there was none.
    """

    commit: Position
    kind: CommitKind
    state_sum: int
    time_ns: int
    changed: Mapping[str, str]
    statistics: ScanStatistics
    torn: str | None


class Scan:
    """One scan of all volumes of a journal; `with` releases the lock.

    Attributes:
        torn: where recovery moved a torn tail, None if there was none.
    """

    def __init__(self, journal_path: str, *, sources: Mapping[str, str] | None = None, take_over: bool = False) -> None:
        """Lock and recover the journal, and open the volumes.

        Args:
            sources: snapshots to read in place of volumes, by name.
            take_over: accept a volume that is another file or device than the one recorded.
        Raises:
            MirrortoolError: a guard refuses; no operation was journaled.
        """
        with ExitStack() as opening:
            self._open = opening.enter_context(OpenJournal(journal_path, doing="scan", take_over=take_over))
            self._sources: list[Source] = []
            for source in self._open_sources(dict(sources or {}), take_over):
                opening.enter_context(source.file)
                self._sources.append(source)
            self._opened = Opened(opening.pop_all(), "scan", journal_path)
        self._writer, self._sums = self._open.writer, self._open.sums
        self.page_size = self._open.journal.page_size
        self.torn = self._open.torn
        self._incomplete_before = self._open.checkpoint.incomplete
        # _lock protects everything below and the writer. Held by the scan's threads while they append a frame.
        self._lock = threading.Lock()
        self._state_sum = self._sums.state_sum
        self._pending: dict[int, int] = {}
        self._segments = SegmentCheck(self._sums)
        self._is_cancelled = False
        self._is_applying = False  # whether the sums may have only some of what the frames say
        total = sum(-(-source.facts.size // self.page_size) for source in self._sources)
        self._statistics = ScanStatistics(total, 0, 0, 0, 0)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def expect_next(self, begins_ns: int | None, seconds: float) -> None:
        """Say, when the journal is closed, when the next scan begins; None if none is planned.

        Args:
            seconds: what the scan took.
        """
        due_ns = 0 if begins_ns is None else begins_ns + round(2 * seconds * 1e9)
        self._open.journal.next_scan = None if begins_ns is None else NextScan(begins_ns, due_ns)

    def run(self) -> ScanResult:
        """Compare every volume and commit.

        Raises:
            ScanCancelled: after `cancel`.
            NoSpaceError, InputOutputError: what was found until then is kept; the next scan continues from there.
        """
        self._opened.require()
        try:
            for source in self._sources:
                self._scan(source)
            changed = {source.name: why for source in self._sources if (why := self._changed(source))}
        except (MirrortoolError, ScanCancelled):
            # Else the next recorder recovers the sums from the frames that are durable.
            if not self._is_applying and not self._writer.is_dead:
                self._keep({source.name for source in self._sources})
            raise
        kind = CommitKind.FUZZY if changed else CommitKind.SCAN
        commit = self._commit(kind, changed)
        statistics, torn = self._statistics, self._open.torn
        return ScanResult(commit, kind, self._state_sum, self._writer.time_ns, changed, statistics, torn)

    def cancel(self) -> None:
        """Stop soon; from any thread."""
        self._is_cancelled = True

    def statistics(self) -> ScanStatistics:
        """How far it is; from any thread."""
        return self._statistics

    def _open_sources(self, snapshots: dict[str, str], take_over: bool) -> Iterator[Source]:
        journal = self._open.journal
        paths = paths_of(journal)
        for name in snapshots:
            if name not in journal.volumes:
                raise UnusableVolumeError(f"the journal has no volume {name}", where=journal.path)
        check_apart(journal.path, {**paths, **snapshots}, recorded=paths.keys() - snapshots.keys())
        for volume in journal.volumes:
            path = snapshots.get(volume.name, paths[volume.name])
            source = open_source(volume.name, path, is_snapshot=volume.name in snapshots)
            yield source  # first, so that a source that is refused is closed with the others
            if not source.is_snapshot and not take_over:
                self._check_volume(source)

    def _check_volume(self, source: Source) -> None:
        """Check that it is the volume that was recorded; a snapshot need not be, as it stands for one."""
        check_identity(source, self._open.checkpoint.volumes.get(source.name))
        if source.name not in self._open.checkpoint.incomplete:
            store = source.store(self._open.sums.volumes)
            is_device = source.facts.identity.is_device
            check_not_emptied(
                self._open.journal, store, self._open.sums, source.name, source.file.path, is_device=is_device
            )

    def _scan(self, source: Source) -> None:
        volume = self._sums.volumes[source.name]
        if source.facts.size != volume.size:
            volume = self._resize(volume, source.facts.size)
        store = source.store(self._sums.volumes)
        done = self._statistics.pages_done
        for_each_piece(store, self.page_size, pieces(store, self._sums, volume), self._compare)
        whole = done + self._sums.volumes.page_count(volume)
        self._statistics = replace(self._statistics, pages_done=whole)

    def _changed(self, source: Source) -> str | None:
        """What shows that a volume changed while it was scanned; None if nothing does."""
        if (why := source.changed()) or not source.must_reread:
            return why
        return self._reread(source) or source.changed()

    def _reread(self, source: Source) -> str | None:
        """Read the volume again, where nothing else tells whether it changed after it was read."""
        self._apply_pending()
        differs = threading.Event()

        def compare(reader: PieceReader, page: int, count: int) -> None:
            if self._is_cancelled:
                raise ScanCancelled
            if reader.sums(count) != self._sums.read(page, count):
                differs.set()

        store, volume = source.store(self._sums.volumes), self._sums.volumes[source.name]
        todo = pieces(store, self._sums, volume)
        for_each_piece(store, self.page_size, takewhile(lambda _: not differs.is_set(), todo), compare)
        return "the file was written" if differs.is_set() else None

    def _resize(self, volume: Volume, size: int) -> Volume:
        """Journal a volume's new size before any page after its old end."""
        check_room(self._sums, volume, size, self._open.journal.path)
        gone = cut_off(self._sums, volume, size)
        if gone[1]:
            self._check_segments(*gone)
        self._begin_journaling()
        batch, change = size_change(self._sums, volume, size)
        self._writer.append(batch, captured=True, state_sum=self._state_sum ^ change)
        self._state_sum ^= change
        self._apply_pending()
        self._is_applying = True
        self._sums.resize(volume.name, size)
        self._is_applying = False
        return self._sums.volumes[volume.name]

    def _compare(self, reader: PieceReader, page: int, count: int) -> None:
        """Journal the pages of a piece that differ from their sums. Called in several threads."""
        if self._is_cancelled:
            raise ScanCancelled
        found, known = reader.sums(count), self._sums.read(page, count)
        if found == known:
            with self._lock:
                self._statistics = replace(self._statistics, pages_done=self._statistics.pages_done + count)
            return
        self._check_segments(page, count)
        new, old = unpack_sums(found), unpack_sums(known)
        places = [place for place in range(count) if new[place] != old[place]]
        batch = captured_batch(page, places, reader.buffer, found, self.page_size)
        changes = {page + place: new[place] for place in places}
        term = state_term(list(changes), [old[place] for place in places])
        term ^= state_term(list(changes), list(changes.values()))
        stored = compress(batch.payload)
        with self._lock:
            if self._is_applying:
                return  # the other thread failed at it, and raises its error
            self._begin_journaling()
            self._writer.append(batch, captured=True, state_sum=self._state_sum ^ term, stored=stored)
            self._state_sum ^= term
            self._pending.update(changes)
            now = self._statistics
            self._statistics = ScanStatistics(
                now.pages_total,
                now.pages_done + count,
                now.pages_written + batch.page_count,
                now.pages_zeroed + len(places) - batch.page_count,
                now.bytes_journaled + len(stored.data),
            )
            if len(self._pending) >= PENDING_PAGES:
                self._apply_pending()

    def _check_segments(self, page: int, count: int) -> None:
        """Check sums before they are replaced: a damaged one would make every state sum from now on wrong."""
        with self._lock:
            try:
                self._segments.require_right(page, count)
            except CorruptJournalError:
                self._open.sums_are_damaged = True
                raise

    def _begin_journaling(self) -> None:
        """Before the first frame, note that the journal will have less than the volumes, until the scan ends."""
        names = {source.name for source in self._sources}
        if not names <= self._open.checkpoint.incomplete:
            self._open.save_checkpoint({}, incomplete=names)

    def _apply_pending(self) -> None:
        """Make the frames durable, then apply their sums to the table."""
        self._writer.sync()
        self._is_applying = True
        self._sums.apply(self._pending)
        self._pending, self._is_applying = {}, False

    def _commit(self, kind: CommitKind, changed: Collection[str]) -> Position:
        builder = BatchBuilder(self.page_size)
        builder.commit(kind, self._writer.durable.lsn)
        self._writer.append(builder.build(), captured=True, state_sum=self._state_sum)
        self._keep(self._incomplete_before & frozenset(changed))
        if not any(source.is_snapshot for source in self._sources):
            forget_noted(self._open.journal)  # the journal has caught up
        return self._writer.durable

    def _keep(self, incomplete: Collection[str] | None = None) -> None:
        """Make everything found until now durable, and note it, and which volumes are still not wholly journaled."""
        self._apply_pending()
        assert self._sums.state_sum == self._state_sum, "the sums are not what the frames say"
        records = {source.name: self._record_of(source) for source in self._sources}
        self._open.save_checkpoint(records, incomplete=incomplete)

    def _record_of(self, source: Source) -> VolumeRecord:
        """What to remember of a volume; of one that a snapshot stood for, only its size is news."""
        known = self._open.checkpoint.volumes.get(source.name)
        record = known if source.is_snapshot and known else VolumeRecord.of(source.facts)
        return replace(record, size=self._sums.volumes[source.name].size)


def captured_batch(page: int, places: Sequence[int], data: Buffer, packed: bytes, page_size: int) -> Batch:
    """The pages at some places of a piece that was read, as one frame's operations.

    Args:
        page: the first of the piece, which is what the places count from.
        data: the piece.
        packed: the sums of all its pages.
    """
    builder, view, sums = BatchBuilder(page_size), memoryview(data), unpack_sums(packed)
    for first, number, is_zero in _runs(places, sums):
        if is_zero:
            builder.zero(page + first, number)
        else:
            end = first + number
            builder.write(
                page + first, view[first * page_size : end * page_size], packed[first * SUM_BYTES : end * SUM_BYTES]
            )
    return builder.build()


def _runs(places: Sequence[int], sums: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """Runs of adjacent places of one kind: (first, length, whether they became zero)."""
    for first, count in adjacent_runs(places):
        place = first
        for is_zero, members in groupby(range(first, first + count), lambda place: not sums[place]):
            length = sum(1 for _ in members)
            yield place, length, is_zero
            place += length
