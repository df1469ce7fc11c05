"""The storage management task (910): reads the journal, checks it, hands it out, and checkpoints the mirror.

Rule: frames are handed out in windows, and a window ends at a commit if one is in it; so whatever stops a replay
between two windows leaves a commit, unless that commit is larger than a window.
Rule: the LSN that the store may reach is raised durably before a window changes its first byte.
Rule: a checkpoint is drain, sync of the store, reading back, sums, sync of the sums, checkpoint (mirror/checkpoint.py).
Bound: one window of payload, and a checkpoint's sums (at most CHECKPOINT_PAGES and those of a window).

Runs in one thread, and not in the main thread (barrier.py says why); `cancel` and `statistics` are for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mirrortool import clock
from mirrortool.errors import (
    ChangedOutsideError,
    CorruptJournalError,
    JournalError,
    NoSpaceError,
)
from mirrortool.journal.check import check_inside
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.commits import Commit
from mirrortool.journal.reader import JournalReader
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import Batch, Kind
from mirrortool.replay.coalesce import Inline, Stretch, stretches
from mirrortool.replay.engine import ReplayEngine
from mirrortool.replay.guard import find_changed_page
from mirrortool.replay.readback import check_written
from mirrortool.store.flat import FlatStore
from mirrortool.store.pagesums import PageSums

WINDOW_BYTES = 32 << 20
CHECKPOINT_PAGES = 1 << 17
CHECKPOINT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is.

    Attributes:
        lsn: handed out up to here.
        checkpoint: what the mirror durably knows.
        payload_bytes: of all pages handed out, before coalescing.
        operations: handed out.
    """

    lsn: int
    target_lsn: int
    checkpoint: Checkpoint
    payload_bytes: int
    operations: int


class Delegator:
    """One replay, from a mirror's checkpoint up to a commit."""

    def __init__(
        self,
        mirror: Mirror,
        reader: JournalReader,
        store: FlatStore,
        sums: PageSums,
        engine: ReplayEngine,
        target: Commit,
        *,
        read_back: bool = True,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        """Replay what `reader`, which stands at the mirror's checkpoint, has up to `target`."""
        self._mirror = mirror
        self._reader = reader
        self._store = store
        self._sums = sums
        self._engine = engine
        self._target = target
        self._read_back = read_back
        self._window_bytes = window_bytes
        self._window: list[tuple[FrameHeader, Batch]] = []
        self._window_filled = 0
        self._commits = mirror.checkpoint.commit_lsn
        self._volumes = store.volumes  # as of the newest frame read; the store's are as of the newest handed out
        self._changes: dict[int, int] = {}  # sums since the last checkpoint, by page
        self._checkpointed_at = clock.monotonic()
        # Up to here the sums on disk may be ahead of the position, so that no state sum can be formed yet.
        self._redo_lsn = 0 if mirror.checkpoint.is_settled else mirror.checkpoint.reached_lsn
        self._is_cancelled = False
        self._is_partial = False  # whether the store holds some of the window that is being handed out
        self._handed_out = mirror.checkpoint
        self._progress = Progress(mirror.checkpoint.position.lsn, target.lsn, mirror.checkpoint, 0, 0)

    def statistics(self) -> Progress:
        """How far it is; from any thread."""
        return self._progress

    def cancel(self) -> None:
        """Stop at the next window, with the mirror at a commit where there is one; from any thread."""
        self._is_cancelled = True

    def run(self) -> None:
        """Replay up to the target, or as far as the journal is sound, and leave a checkpoint.

        Raises:
            JournalError: the journal is damaged or torn before the target; the mirror is at the last commit before.
            NoSpaceError: the store is full; the mirror is where the checkpoint says.
            HostError: the store or the journal failed; the mirror is where the checkpoint says, or rolling forward.
        """
        self._check_not_changed()
        damage: JournalError | None = None
        try:
            try:
                for header, batch in self._frames():
                    self._take(header, batch)
                    if self._is_cancelled:
                        break
            except JournalError as error:
                damage = error
            self._hand_out_commits()
        except NoSpaceError:
            if not self._is_partial:  # reserving failed: no byte of the window was changed
                self._checkpoint(settled=True)
            raise
        self._checkpoint(settled=True)
        if damage:
            raise damage

    def _frames(self) -> Iterator[tuple[FrameHeader, Batch]]:
        while self._reader.position.lsn < self._target.lsn:
            header = self._reader.next_header()
            if header is None:
                raise CorruptJournalError(
                    f"ends at LSN {self._reader.position.lsn}, before LSN {self._target.lsn}",
                    where=self._reader.journal.path,
                )
            yield header, self._reader.batch()

    def _take(self, header: FrameHeader, batch: Batch) -> None:
        """Add a frame to the window, and hand the window out when it is full."""
        self._volumes = check_inside(header, batch, self._volumes, self._reader.journal.path)
        self._window.append((header, batch))
        self._window_filled += len(batch.payload) + 64 * len(batch)
        if self._window_filled < self._window_bytes:
            return
        self._hand_out_commits()
        if self._window_filled >= self._window_bytes:
            self._hand_out(len(self._window))

    def _hand_out_commits(self) -> None:
        """Hand out the window up to its last commit, if it has one."""
        ends = [number for number, (header, _) in enumerate(self._window, 1) if header.is_commit]
        if ends:
            self._hand_out(ends[-1])

    def _hand_out(self, count: int) -> None:
        frames, self._window = self._window[:count], self._window[count:]
        self._window_filled = sum(len(batch.payload) + 64 * len(batch) for _, batch in self._window)
        last = frames[-1][0]
        for part in stretches((batch for _, batch in frames), self._store.page_size):
            if isinstance(part, Inline):
                self._run_inline(part, last)
            elif part.pieces.firsts:
                self._delegate(part, last)
        self._note_handed_out(frames)
        is_due = clock.monotonic() - self._checkpointed_at > CHECKPOINT_SECONDS
        if len(self._changes) >= CHECKPOINT_PAGES or is_due:
            self._checkpoint(settled=False)

    def _delegate(self, stretch: Stretch, last: FrameHeader) -> None:
        self._store.reserve(stretch.pieces.written(), len(stretch.sums) * self._store.page_size)
        self._raise_reached(last)
        self._changes.update(stretch.sums)
        self._engine.delegate(stretch, last.position.lsn)

    def _run_inline(self, operation: Inline, last: FrameHeader) -> None:
        self._settle_sums()
        self._raise_reached(last)
        if operation.kind == Kind.RESIZE:
            volume = self._store.volumes.at_base(operation.page)
            assert volume is not None
            self._engine.run_inline(operation)
            self._sums.resize(volume.name, operation.count)
        else:
            self._engine.run_inline(operation)
            self._sums.zero(operation.page, operation.count)

    def _raise_reached(self, last: FrameHeader) -> None:
        """Durably allow the store to go as far as this frame, and in one step as far as its file surely goes."""
        self._is_partial = True
        reached = self._mirror.checkpoint.reached_lsn
        if last.position.lsn > reached:
            following = [start for start in self._reader.journal.file_starts() if start > last.position.lsn]
            step = following[0] - 1 if following else self._target.lsn
            goal = max(last.position.lsn, min(step, self._target.lsn))
            self._mirror.save_checkpoint(self._mirror.checkpoint.reaching(goal))

    def _note_handed_out(self, frames: list[tuple[FrameHeader, Batch]]) -> None:
        last = frames[-1][0]
        for header, _ in frames:
            if header.is_commit:
                self._commits = header.position.lsn
        self._handed_out = Checkpoint(
            last.position,
            last.state_sum,
            last.time_ns,
            last.is_commit,
            self._commits,
            0,
            {volume.name: volume.size for volume in self._store.volumes},
        )
        self._is_partial = False
        self._progress = replace(
            self._progress,
            lsn=last.position.lsn,
            payload_bytes=self._progress.payload_bytes + sum(len(batch.payload) for _, batch in frames),
            operations=self._progress.operations + sum(len(batch) for _, batch in frames),
        )

    def _checkpoint(self, *, settled: bool) -> None:
        """Make what was handed out durable, and say so; `settled` if nothing further is to follow."""
        self._settle_sums()
        goal = self._handed_out
        if self._redo_lsn and goal.position.lsn >= self._redo_lsn:
            self._sums.rebuild()
            self._redo_lsn = 0
        if not self._redo_lsn and self._sums.state_sum != goal.state_sum:
            raise CorruptJournalError(
                f"the state sum at LSN {goal.position.lsn} is not the primary's",
                where=self._reader.journal.path,
                remedy="mirrortool verify tells which pages differ",
            )
        self._sums.sync()
        reached = self._mirror.checkpoint.reached_lsn
        if settled and not self._redo_lsn:
            reached = goal.position.lsn
        self._mirror.save_checkpoint(replace(goal, reached_lsn=max(reached, goal.position.lsn)))
        self._progress = replace(self._progress, checkpoint=self._mirror.checkpoint)
        self._checkpointed_at = clock.monotonic()

    def _settle_sums(self) -> None:
        """Drain, make the store durable, read back, and bring the sums up to it."""
        self._engine.wait_drained()
        self._store.sync()
        if self._read_back:
            check_written(self._store, self._store.page_size, self._changes)
        self._sums.apply(self._changes)
        self._changes = {}

    def _check_not_changed(self) -> None:
        """Before the first write: some pages are what the sums say, so that nobody wrote behind our back."""
        if self._redo_lsn:
            return
        wrong = find_changed_page(self._store, self._sums)
        if wrong is not None:
            raise ChangedOutsideError(
                f"page {wrong:#x} is not what the mirror left there",
                where=self._mirror.path,
                remedy="mirrortool verify lists what differs; stop whatever writes there",
            )
