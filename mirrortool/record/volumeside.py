"""The volume side of a recorder: brings to the volumes what is durable in the journal, and notes checkpoints.

    write-back   commit what is not; make the journal durable; write what waits, sorted and merged
    checkpoint   after a write-back: make the volumes durable, then the sums, then replace recorder.json

Rule (no-steal): nothing is written to a volume before its frame is durable.
Rule: while a volume cannot be written, changes are refused, and its pages stay in memory. Reads and flushes still work.

Locks: `_cycle`, see the table in journalside.py; `_room` is a condition of the journal's lock, at which writers wait
while too much waits to be written back.
Thread: one, from `start` to `stop`; woken early when enough waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mirrortool import clock
from mirrortool.errors import HostError, InputOutputError, MirrortoolError, NoSpaceError
from mirrortool.journal.position import Position
from mirrortool.operation import CommitKind
from mirrortool.record.heldvolumes import STALL_NS
from mirrortool.record.journalside import JournalSide
from mirrortool.record.recovery import OpenJournal
from mirrortool.record.writeback import WAITING_BYTES_MAX, Generation, Waiting, write_pages

COMMIT_SECONDS = 1.0
"""After this time a change is durable, committed and on its way to the volume, also if no flush was asked for."""
CHECKPOINT_SECONDS = 10.0
CHECKPOINT_PAGES = 1 << 18
"""A checkpoint is due after this many pages; recovery redoes little more than that."""


@dataclass(frozen=True, slots=True)
class _Going:
    """A write-back that was begun and has not arrived.

    Attributes:
        checkpoint: the position of the checkpoint that it becomes when it arrives; None if it becomes none.
        incomplete: the volumes that are not wholly journaled at that position.
    """

    checkpoint: Position | None
    incomplete: Collection[str]


class VolumeSide:
    """The volumes, and what waits to be written to them (430, FIG. 4).

    Attributes:
        store: the volumes.
        waiting: what they lack.
        problem: why changes are refused; None if they are not. Any thread may read it, once: it may be gone by then.
        is_volumes_problem: whether there is one, and a volume is at fault, not what is kept beside the journal.
    """

    def __init__(self, opened: OpenJournal, journal: JournalSide) -> None:
        assert opened.held is not None
        self._open, self._held, self._journal = opened, opened.held, journal
        self.store = self._held.store(opened.sums.volumes)
        self.waiting = Waiting(opened.sums.page_size)
        self.problem: HostError | None = None
        self.is_volumes_problem = False
        self._cycle = threading.Lock()
        self._room = threading.Condition(journal.lock)
        self._going: _Going | None = None  # under _cycle
        self._checkpointed_at = clock.monotonic()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def checkpoint(self) -> Position:
        """Up to here the volumes hold everything durably."""
        return self._open.checkpoint.position

    def start(self, then: Callable[[], object]) -> None:
        """Write back every second in a thread, and call `then` each time."""
        self._thread = threading.Thread(target=self._run, args=(then,), name="mirrortool-write-back", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._wake.set()
        if self._thread:
            self._thread.join()

    def hurry(self) -> None:
        """Let the thread write back now, if that is due."""
        if self.waiting.is_due or self._journal.sums.changed_pages >= CHECKPOINT_PAGES:
            self._wake.set()

    def wait_for_room(self) -> None:
        """Wait until changes are accepted and less waits than WAITING_BYTES_MAX; under the journal's lock.

        Raises:
            HostError: the journal or a volume refuses changes.
        """
        self.require_serving()
        while self.waiting.bytes_waiting >= WAITING_BYTES_MAX:
            self._wake.set()
            self._room.wait()
            self.require_serving()

    def require_serving(self) -> None:
        """
        Raises:
            HostError: the journal or a volume refuses changes.
        """
        self._journal.require_alive()
        problem = self.problem  # once: what is on its way may arrive meanwhile
        if problem:
            raise type(problem)(problem.what, where=problem.where, remedy=problem.remedy)

    def write_back(self, *, checkpoint: bool = False) -> None:
        """Commit what is not committed, make it durable, and bring everything that waits to the volumes.

        Args:
            checkpoint: also when none is due.
        Raises:
            HostError: a volume cannot be written; its pages stay in memory, and changes are refused until it can.
        """
        with self._cycle:
            self._write_back(checkpoint)

    @contextmanager
    def drained(self) -> Iterator[None]:
        """A moment, under the journal's lock, in which nothing waits and the newest checkpoint covers the journal."""
        with self._cycle:
            self._write_back(checkpoint=True)
            with self._journal.lock:
                self.require_serving()
                self._begin(is_checkpoint=True)  # what was appended since, which is little
                self._journal.sync()
                self._arrive(_do_nothing)
                yield

    def zero_now(self, page: int, count: int) -> None:
        """Zero many pages, whose ZERO is the newest frame; in `drained`."""
        self._journal.sync()
        try:
            with self._held.writing():
                self.store.zero(page, count)
            self.sync()
            self._journal.sums.table.zero(page, count)
            self._journal.sums.forget()
            self._save_checkpoint(self._journal.durable, self._journal.incomplete)
        except HostError as error:
            self._journal.fail(error)  # journaled, but not done: the next start redoes it
            raise

    def sync(self) -> None:
        """Make durable what the volumes have.

        Raises:
            HostError: the recorder has failed, too: the kernel may have dropped any page since the checkpoint, and
                would not say so again. The next start redoes them.
        """
        try:
            self.store.sync()
        except HostError as error:
            self._journal.fail(error)
            raise

    def write_now(self, content: Generation) -> None:
        """Write pages that the journal will not have; under the journal's lock.

        Raises:
            InputOutputError: also where the volume has no room, as it is not known how much was written.
        """
        try:
            with self._held.writing():
                write_pages(self.store, content, self.waiting.hole, _do_nothing)
        except NoSpaceError as error:
            raise InputOutputError(error.what, where=error.where, remedy=error.remedy) from error

    def _write_back(self, checkpoint: bool) -> None:
        """Under _cycle."""
        try:
            self._journal.require_alive()
            with self._journal.lock:
                self._journal.try_commit(CommitKind.INTERVAL)
            if self._going:  # an earlier one failed; even if it fails again, what came since becomes durable
                self._journal.sync()
                self._arrive(self._keep_time)
            with self._journal.lock:
                if not self._has_work(checkpoint):
                    return
                self._begin(checkpoint or self._is_checkpoint_due())
            self._journal.sync()
            self._arrive(self._keep_time)
        finally:
            self._wake_waiters()

    def _has_work(self, is_wanted: bool) -> bool:
        """Whether there is something to make durable, to write, or to note in a checkpoint that is wanted or due.

        Heartbeats only count where a checkpoint is wanted: an idle recorder writes nothing.
        """
        journal = self._journal
        end = journal.position if is_wanted else journal.needed
        if journal.durable.lsn < end.lsn or self.waiting.generations[0]:
            return True
        if is_wanted and not journal.may_commit:
            return True  # what changed without the journal moved no position, but volumes and their times changed
        return (is_wanted or self._is_checkpoint_due()) and self.checkpoint.lsn < end.lsn

    def _begin(self, is_checkpoint: bool) -> None:
        """Everything that waits is on its way, to be a checkpoint when it has arrived; under _cycle and the lock."""
        checkpoint = self._journal.position if is_checkpoint else None
        self._going = _Going(checkpoint, frozenset(self._journal.incomplete))
        self.waiting.begin()
        if is_checkpoint:
            self._journal.sums.begin_applying()

    def _arrive(self, pause: Callable[[], None]) -> None:
        """Bring what is on its way to the volumes; it is durable in the journal. Under _cycle.

        Raises:
            HostError: the same call can be made again.
        """
        assert self._going
        checkpoint = self._going.checkpoint
        with self._noting_problems(of_volume=True):
            if pages := self.waiting.generations[1]:
                with self._held.writing():
                    write_pages(self.store, pages, self.waiting.hole, pause)
            if checkpoint:
                self.sync()
        with self._noting_problems(of_volume=False):
            if checkpoint:
                self._journal.require_alive()  # else another thread's fdatasync may have had the error
                self._journal.sums.apply()
                self._save_checkpoint(checkpoint, self._going.incomplete)
        self.waiting.finish()
        self._going = self.problem = None
        self.is_volumes_problem = False

    @contextmanager
    def _noting_problems(self, *, of_volume: bool) -> Iterator[None]:
        try:
            yield
        except HostError as error:
            self.problem, self.is_volumes_problem = error, of_volume
            raise

    def _save_checkpoint(self, position: Position, incomplete: Collection[str]) -> None:
        try:
            self._open.save_checkpoint(self._held.records(), position=position, incomplete=incomplete)
        except HostError as error:
            if self._open.sums_are_damaged:
                self._journal.fail(error)
            raise
        self._checkpointed_at = clock.monotonic()

    def _keep_time(self) -> None:
        """Volumes are written no later than the newest frame allows: recovery relies on it (heldvolumes.py)."""
        if clock.now_ns() - self._journal.time_ns > STALL_NS // 2 and self._journal.may_commit:
            with self._journal.lock, suppress(NoSpaceError):
                self._journal.commit(CommitKind.INTERVAL)
            self._journal.sync()

    def _is_checkpoint_due(self) -> bool:
        is_old = clock.monotonic() - self._checkpointed_at >= CHECKPOINT_SECONDS
        return is_old or self._journal.sums.changed_pages >= CHECKPOINT_PAGES

    def _run(self, then: Callable[[], object]) -> None:
        """Every second, at once when enough waits, until the recorder stops or fails."""
        while not self._stopping.is_set() and not self._journal.failure:
            self._wake.wait(COMMIT_SECONDS)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self.write_back()
                then()
            except HostError:
                self._stopping.wait(COMMIT_SECONDS)  # a volume that fails is tried again then, not at once
            except MirrortoolError as error:
                self._journal.fail(error)
            except BaseException as bug:  # without this thread nothing would be written back, and nothing would show it
                self._journal.fail(MirrortoolError(f"a bug: {bug!r}", where=self._open.journal.path))
                self._wake_waiters()
                raise
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        with self._room:
            self._room.notify_all()


def _do_nothing() -> None:
    pass
