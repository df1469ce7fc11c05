"""The journal side of a recorder: appends frames, commits, and makes them durable, for many threads.

Rule: an operation is acknowledged when its frame is appended, and durable when a flush that began later returns.
Rule: a failed fdatasync is never tried again, a damaged table of sums never used again, and a journal file that was
deleted, replaced, or written by another process never written again: the recorder has failed then, and nothing more is
acknowledged. A flush checks the journal file even where everything is durable: it must not succeed on a deleted file.

Locks of the recorder, in the order in which they are acquired, and what is waited for under each:

    VolumeSide._cycle         one write-back or large ZERO at a time: everything that belongs to it
    JournalSide._flushing     one flush at a time: its fdatasync. A thread that waits for it finds, mostly, that the
                              flush before served it too. Never together with _cycle
    JournalSide.lock          from widening to append, and whatever must see one moment: writes of the journal, reads of
                              pages changed in part; writes of volumes without the journal. An fdatasync where a
                              journal file is followed by the next, or a failed append is cut off; where a segment is
                              noted in detached.log, or journaled as captured; and in VolumeSide.drained, for a large
                              ZERO or to detach
    Appender._syncing         one fdatasync of the journal at a time
    CurrentSums._table_lock   a block or slice of the table of sums
    HeldVolumes._seen_lock    seen.json
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mirrortool import clock, files
from mirrortool.checksum import state_term
from mirrortool.errors import HostError, InputOutputError, MirrortoolError, NoSpaceError
from mirrortool.journal.codec import Stored, compress
from mirrortool.journal.commits import newest_commits
from mirrortool.journal.diskspace import FULL_BYTES
from mirrortool.journal.overdue import HEARTBEAT_SECONDS
from mirrortool.journal.position import Position
from mirrortool.operation import Batch, BatchBuilder, CommitKind
from mirrortool.record.currentsums import CurrentSums
from mirrortool.record.recovery import OpenJournal

REFUSED_SECONDS = 30.0
"""A change that found no room is remembered this long, if there is room by now: a quota is not seen otherwise."""


@dataclass(frozen=True, slots=True)
class _RefusedFrame:
    """A frame that found no room.

    Attributes:
        payload_bytes: of it; one that is smaller proves nothing.
        at: when, on the monotonic clock.
    """

    error: NoSpaceError
    payload_bytes: int
    at: float


class JournalSide:
    """The end of a journal that many threads append to.

    Attributes:
        lock: protects everything here except `flush`, `sync` and `fail`, which any thread may call without it.
        sums: of all pages, as of `position`.
        committed: the newest commit; what follows it is not committed.
        needed: the newest frame that is not a heartbeat. Heartbeats are not made durable, nor noted in a checkpoint,
            for their own sake: an idle recorder does not write to the disk.
        commit_time_ns: the time of the newest commit; 0 if there is none.
        may_commit: false while the journal lacks some of what the volumes have.
        incomplete: the volumes that are not wholly journaled yet; commits say so.
        ending: set when nothing more can be recorded; `failure` says why. The code that runs the recorder waits for it.
        bytes_journaled: payload as stored, since the start.
        sync_seconds: what the newest fdatasync took.
    """

    def __init__(self, opened: OpenJournal, incomplete: set[str]) -> None:
        self._open = opened
        self._writer = opened.writer
        self._page_size = opened.sums.page_size
        self._flushing = threading.Lock()
        self.lock = threading.Lock()
        self.sums = CurrentSums(opened.sums)
        self.state_sum = opened.sums.state_sum
        newest = next(iter(newest_commits(opened.journal, 1)), None)
        self.committed = newest.position if newest else opened.journal.start
        self._committed_kind = newest.kind if newest else None
        self.needed = opened.writer.position
        self._appended_at = clock.monotonic()
        self.commit_time_ns = newest.time_ns if newest else 0
        self.may_commit = True
        self.incomplete = incomplete
        self.failure: MirrortoolError | None = None
        self._refused: _RefusedFrame | None = None
        self.ending = threading.Event()
        self.bytes_journaled = 0
        self.sync_seconds = 0.0

    @property
    def position(self) -> Position:
        """After the newest frame."""
        return self._writer.position

    @property
    def durable(self) -> Position:
        """After the newest frame that survives a power cut."""
        return self._writer.durable

    @property
    def time_ns(self) -> int:
        """Of the newest frame."""
        return self._writer.time_ns

    def append(
        self, batch: Batch, stored: Stored, pages: Sequence[int], sums: Sequence[int], *, captured: bool
    ) -> None:
        """Append a frame that gives these pages these sums, in this order; all or nothing. Under `lock`.

        Raises:
            NoSpaceError, HostError: nothing was appended, and it may succeed later.
        """
        with self._failing_if_damaged():
            old = self.sums.swap(pages, sums)
        state_sum = self.state_sum ^ state_term(pages, old) ^ state_term(pages, sums)
        try:
            self._append(batch, captured=captured, state_sum=state_sum, stored=stored)
        except BaseException:
            self.sums.restore(pages, old)
            raise
        self.state_sum = state_sum
        self.bytes_journaled += len(stored.data)

    def append_zero(self, page: int, count: int) -> None:
        """Append a ZERO of many pages, whose sums are all in the table; the caller applies it there. Under `lock`."""
        builder = BatchBuilder(self._page_size)
        builder.zero(page, count)
        with self._failing_if_damaged():
            state_sum = self.state_sum ^ self.sums.term_in_table(page, count)
        self._append(builder.build(), captured=False, state_sum=state_sum, stored=compress(b""))
        self.state_sum = state_sum

    def known_sums(self, page: int, count: int) -> list[int]:
        """The sums of adjacent pages of one volume, as of `position`; under `lock`."""
        with self._failing_if_damaged():
            return self.sums.read(page, count)

    def commit(self, kind: CommitKind, name: str | None = None) -> Position:
        """Append a commit, or a mark if it has a name; under `lock`."""
        self.require_alive()
        builder = BatchBuilder(self._page_size)
        kind = CommitKind.INCOMPLETE if self.incomplete else kind
        builder.commit(kind, self._writer.durable.lsn, name)
        needed = self.needed
        self.committed = self._append(builder.build(), captured=False, state_sum=self.state_sum)
        self._committed_kind = kind
        if kind == CommitKind.HEARTBEAT:
            self.needed = needed
        self.commit_time_ns = self._writer.time_ns
        return self.committed

    def _append(self, batch: Batch, *, captured: bool, state_sum: int, stored: Stored | None = None) -> Position:
        """A failure after which the journal accepts nothing more ends the recorder."""
        try:
            position = self._writer.append(batch, captured=captured, state_sum=state_sum, stored=stored)
        except MirrortoolError as error:
            if self._writer.is_dead:
                self.fail(error)
            elif isinstance(error, NoSpaceError):
                self._refused = _RefusedFrame(error, len(batch.payload), clock.monotonic())
            raise
        if self._refused and len(batch.payload) >= self._refused.payload_bytes:
            self._refused = None
        self.needed, self._appended_at = position, clock.monotonic()
        return position

    @property
    def full(self) -> NoSpaceError | None:
        """Why the newest change found no room, unless one as large found some since, or none was tried for a while.

        From any thread.
        """
        refused = self._refused
        if refused is None or self.failure:
            return None
        is_old = clock.monotonic() - refused.at > REFUSED_SECONDS
        try:
            has_room = files.free_bytes(self._open.journal.path) > 2 * refused.payload_bytes + FULL_BYTES
        except HostError:
            has_room = False
        return None if is_old and has_room else refused.error

    def beat(self) -> None:
        """Append a heartbeat, if nothing was appended for HEARTBEAT_SECONDS. Not under `lock`.

        A COMMIT, not made durable, that repeats the newest commit; so there is none while something is not committed,
        or where that commit is not a state of the volumes. Without room for it, none is tried before the next is due.
        """
        with self.lock:
            is_due = clock.monotonic() - self._appended_at >= HEARTBEAT_SECONDS
            if is_due and not self.failure and self._may_beat():
                self._appended_at = clock.monotonic()
                with suppress(HostError):
                    self.commit(CommitKind.HEARTBEAT)

    def _may_beat(self) -> bool:
        is_state = self._committed_kind not in (None, CommitKind.FUZZY, CommitKind.INCOMPLETE)
        return is_state and self.may_commit and not self.incomplete and self.committed == self._writer.position

    def try_commit(self, kind: CommitKind) -> None:
        """Commit what is not committed, if there is room for it and `may_commit`; under `lock`."""
        if self.committed != self._writer.position and self.may_commit:
            with suppress(NoSpaceError):
                self.commit(kind)

    def flush(self) -> None:
        """Commit, and make durable, everything that was appended before the call. Not under `lock`.

        One fdatasync serves all threads that wait. Without room for the COMMIT, all the frames still become durable.
        """
        wanted = self._writer.position
        if self._is_kept(wanted):
            self.sync()  # see the rule above
            return
        with self._flushing:
            if self._is_kept(wanted):
                return
            with self.lock:
                self.require_alive()
                self.try_commit(CommitKind.FLUSH)
            self.sync()

    def _is_kept(self, wanted: Position) -> bool:
        is_committed = self.committed.lsn >= wanted.lsn or not self.may_commit
        return is_committed and self._writer.durable.lsn >= wanted.lsn

    def sync(self) -> None:
        """Make everything that was appended before the call durable."""
        started, before = clock.monotonic(), self._writer.durable
        try:
            durable = self._writer.sync()
        except MirrortoolError as error:
            self.fail(error)
            raise
        if durable != before:
            self.sync_seconds = clock.monotonic() - started

    def fail(self, error: MirrortoolError) -> None:
        """Stop for good; the journal has all that was acknowledged."""
        self.failure = self.failure or error
        self.ending.set()

    def require_alive(self) -> None:
        """
        Raises:
            InputOutputError: the recorder has failed.
        """
        if self.failure:
            raise InputOutputError(self.failure.what, where=self.failure.where, remedy=self.failure.remedy)

    @contextmanager
    def _failing_if_damaged(self) -> Iterator[None]:
        """A table that turns out damaged ends the recorder, as every state sum from now on would be wrong."""
        try:
            yield
        except MirrortoolError as error:
            self._open.sums_are_damaged = True
            self.fail(error)
            raise
