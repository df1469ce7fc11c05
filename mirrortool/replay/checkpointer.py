"""Makes what was handed out durable, while the next windows are already being written.

A checkpoint is: the store made durable, the written pages read back, their sums, those made durable, and then the
mirror's checkpoint (mirror/checkpoint.py says why in this order). The sums of later windows wait for the next one.

Rule: one checkpoint at a time. `begin` starts it in a thread of its own, once everything handed out is in the store,
and the caller continues; the next `begin`, `bring_up_sums` and `finish` wait for it, and raise what it failed with.
Rule: nothing else writes the sums or the checkpoint file meanwhile; `raise_reached` shares the file under the lock.
Bound: the sums of two checkpoints.

All methods but `checkpoint` and `progress` are for the delegator's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mirrortool import files
from mirrortool.checksum import SUM_BYTES
from mirrortool.errors import ChangedOutsideError, CorruptJournalError, NoSpaceError
from mirrortool.lsn import Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from mirrortool.mirror.findings import Repairs
from mirrortool.replay.readback import check_written
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.wording import quoted_word

_SPARE_BYTES = 1 << 20
_LOW_BYTES = 256 << 20
"""More than the blocks that a window reserves; with less, the next window may take what the sums of this one need."""


OnSaved = Callable[[Checkpoint, bool], None]


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How much was replayed: from where the replay began to one LSN.

    Attributes:
        lsn: up to here.
        payload_bytes: of all pages up to there, before coalescing.
        operations: up to there.
        journal_bytes: of all frames up to there, as they are stored.
    """

    lsn: Lsn
    payload_bytes: int
    operations: int
    journal_bytes: int = 0


class Checkpointer:
    """The durable side of one replay."""

    def __init__(
        self,
        mirror: Mirror,
        store: Store,
        sums: PageSums,
        *,
        read_back: bool,
        on_saved: OnSaved | None = None,
        repairs: Repairs | None = None,
    ) -> None:
        """Begin where the mirror is.

        Args:
            repairs: told which pages were made right; only where they are read back.
            on_saved: told each checkpoint once it is durable, one at a time; and whether nothing follows for now.
        """
        self._mirror = mirror
        self._store = store
        self._sums = sums
        self._read_back = read_back
        self._repairs = repairs
        self._zeroed: list[tuple[int, int]] = []  # runs that became zeros, not known to be durable
        # _lock protects the checkpoint file and _changes. Held for one dict operation, or one replacement of the file.
        self._lock = threading.Lock()
        self._changes: dict[int, int] = {}  # sums handed out since the last `begin` or `bring_up_sums`, by page
        # Up to here the sums on disk may be ahead of the position after a crash, so that no state sum can be formed.
        self._redo_lsn = 0 if mirror.checkpoint.is_finished else mirror.checkpoint.reached_lsn
        self._raised_lsn = 0  # how far the store may go since the last `begin`; protected by _lock
        self._on_saved = on_saved
        # Replaced as a whole, by the thread of a checkpoint, after the checkpoint's file; read by any.
        self._progress = ReplayProgress(mirror.checkpoint.position.lsn, 0, 0)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """What the mirror durably knows; from any thread."""
        return self._mirror.checkpoint

    @property
    def progress(self) -> ReplayProgress:
        """What was replayed and is durable; from any thread. Never more than the checkpoint that is read after it."""
        return self._progress

    @property
    def mirror_path(self) -> str:
        """The mirror's directory."""
        return self._mirror.path

    @property
    def held(self) -> Sequence[str]:
        """The names of the volumes whose bytes the mirror has."""
        return self._mirror.held

    @property
    def page_count(self) -> int:
        """Pages handed out since the last checkpoint was begun."""
        return len(self._changes)

    def note(self, sums: Mapping[int, int]) -> None:
        """These pages are about to be written."""
        with self._lock:
            self._changes.update(sums)

    def check_space(self, pages: int) -> None:
        """There is room for the sums of this many more pages, and for the checkpoint.

        Raises:
            NoSpaceError: there is not; nothing was changed.
        """
        # In the worst case each sum is the first in its block of the table; in the common one they are neighbours.
        needed = _SPARE_BYTES + 2 * SUM_BYTES * (pages + len(self._changes))
        if files.free_bytes(self._mirror.path) < needed:
            raise NoSpaceError(
                "no space for the sums and the checkpoint", where=self._mirror.path, remedy="free some space"
            )

    def is_space_low(self) -> bool:
        """Whether sums are waiting for which there may be no room when the next window has taken its blocks."""
        return bool(self._changes) and files.free_bytes(self._mirror.path) < _LOW_BYTES

    def raise_reached(self, lsn: Lsn) -> None:
        """Durably allow the store to go as far as `lsn`."""
        with self._lock:
            self._raised_lsn = lsn
            self._mirror.save_checkpoint(self._mirror.checkpoint.reaching(lsn))

    def keep_reached(self, lsn: Lsn) -> bool:
        """Whether the store may go as far as `lsn` already; the checkpoint that is being made then allows that, too."""
        with self._lock:
            if lsn > self._mirror.checkpoint.reached_lsn:
                return False
            self._raised_lsn = max(self._raised_lsn, lsn)
            return True

    def begin_resync(self, lsn: Lsn, *, ignores_table: bool) -> None:
        """Durably say that the mirror starts over from the base of this LSN, before the first byte changes."""
        with self._lock:
            self._mirror.save_checkpoint(self._mirror.checkpoint.resyncing(lsn, ignores_table=ignores_table))
            self._redo_lsn = self._mirror.checkpoint.reached_lsn

    def begin(self, new: Checkpoint, progress: ReplayProgress, *, is_complete: bool) -> None:
        """Start a checkpoint of what is in the store; everything handed out is.

        Args:
            new: where the store is; its `reached_lsn` does not matter.
            progress: how much was replayed up to there.
            is_complete: whether nothing after it was handed out yet.
        """
        self.finish()
        self._store.begin_checkpoint()
        changes, self._changes = self._changes, {}
        self._raised_lsn = 0
        thread = threading.Thread(
            target=self._work, args=(new, progress, changes, is_complete), name="mirrortool-checkpoint", daemon=True
        )
        thread.start()
        self._thread = thread

    def finish(self) -> None:
        """Wait for the checkpoint that was begun, and raise what it failed with."""
        thread, self._thread = self._thread, None
        if thread:
            thread.join()
        if self._error:
            raise self._error

    def finish_for_now(self) -> None:
        """As `finish`, and nothing follows for now."""
        self.finish()
        self._tell(is_idle=True)

    def close(self) -> None:
        """Wait for the checkpoint that was begun, whether or not it succeeds."""
        if self._thread:
            self._thread.join()

    def forget(self, page: int, count: int) -> None:
        """These pages are about to become zeros, with their sums, in the caller's thread."""
        self.finish()
        self._zeroed.append((page, count))
        with self._lock:
            if count < len(self._changes):
                for each in range(page, page + count):
                    self._changes.pop(each, None)
            else:
                outside = {each: new for each, new in self._changes.items() if not page <= each < page + count}
                self._changes = outside

    def bring_up_sums(self) -> None:
        """Bring the sums up to the store, which holds everything handed out; before an operation that runs alone."""
        self.finish()
        if not self._changes:
            return
        changes, self._changes = self._changes, {}
        try:
            self._make_durable(changes)
        except BaseException as error:
            self._error = error  # the sums are part old, part new: no checkpoint can follow
            raise

    def _work(self, new: Checkpoint, progress: ReplayProgress, changes: Mapping[int, int], is_complete: bool) -> None:
        try:
            self._make_durable(changes)
            self._check_state_sum(new)
            self._sums.sync()
            self._save(new, progress, is_complete)
        except BaseException as error:  # raised in the delegator's thread
            self._error = error

    def _make_durable(self, changes: Mapping[int, int]) -> None:
        zeroed, self._zeroed = self._zeroed, []
        self._store.sync()
        if self._read_back:
            check_written(self._store, self._sums.page_size, self._held(changes), self._is_overtaken)
        self._sums.apply(changes)
        if self._repairs and self._read_back:
            self._repairs.written(self._sums.volumes, changes, zeroed)

    def _held(self, changes: Mapping[int, int]) -> Mapping[int, int]:
        """Without those of volumes that the mirror does not hold."""
        if self._mirror.holds_all:
            return changes
        return {page: new for page, new in changes.items() if self._mirror.is_held(page)}

    def _is_overtaken(self, page: int) -> bool:
        """Whether a page is being written again since the checkpoint was begun."""
        with self._lock:
            return page in self._changes

    def _check_state_sum(self, new: Checkpoint) -> None:
        if self._redo_lsn and new.position.lsn < self._redo_lsn:
            return
        if self._redo_lsn:
            self._sums.rebuild()
            self._redo_lsn = 0
            if self._sums.state_sum != new.state_sum:
                raise self._undecided(new)
        if self._sums.state_sum != new.state_sum:
            self._judge(new)

    def _judge(self, new: Checkpoint) -> None:
        """The running state sum is not the primary's: find out whether the mirror's sums are wrong, or the journal.

        The page sums alone decide. If they give the primary's state sum, what had rotted was written anew since, or is
        in the sums of segments, which are made of them anew. If they give what the running sum gives, they are as the
        operations of the journal make them, and it is the journal that contradicts itself.

        Raises:
            ChangedOutsideError: they give neither.
            CorruptJournalError: the journal does.
        """
        running = self._sums.state_sum
        self._sums.rebuild()
        if self._sums.state_sum == new.state_sum:
            return
        if self._sums.state_sum != running:
            raise ChangedOutsideError(
                "is not as mirrortool left it: some pages that were not written meanwhile have other sums",
                where=self._mirror.sums_path,
                remedy=f"mirrortool verify {quoted_word(self._mirror.path)} tells more; the journal is not to blame",
            )
        raise CorruptJournalError(
            f"the state sum at LSN {new.position.lsn} is not what its operations give",
            where=self._mirror.journal_path,
            remedy=f"mirrortool verify {quoted_word(self._mirror.journal_path)} tells from which LSN on",
        )

    def _undecided(self, new: Checkpoint) -> ChangedOutsideError:
        """After a redo nothing in the mirror tells which of the two is wrong."""
        return ChangedOutsideError(
            f"do not give the journal's state sum at LSN {new.position.lsn}: they are damaged, or the journal is",
            where=self._mirror.sums_path,
            remedy=f"mirrortool verify {quoted_word(self._mirror.journal_path)} tells which; "
            "if it is whole, make the mirror anew",
        )

    def _save(self, new: Checkpoint, progress: ReplayProgress, is_complete: bool) -> None:
        with self._lock:
            is_alone = is_complete and not self._redo_lsn
            reached = self._raised_lsn if is_alone else self._mirror.checkpoint.reached_lsn
            self._mirror.save_checkpoint(replace(new, reached_lsn=Lsn(max(reached, new.position.lsn))))
        self._store.end_checkpoint()
        self._progress = progress
        self._tell(is_idle=False)

    def _tell(self, *, is_idle: bool) -> None:
        if self._on_saved:
            self._on_saved(self._mirror.checkpoint, is_idle)
