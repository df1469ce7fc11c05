"""The storage management task (910): reads the journal, checks it, hands it out, and checkpoints the mirror.

Rule: frames are handed out in windows, and a window ends at a commit if one is in it; so whatever stops a replay
between two windows leaves a commit, unless that commit is larger than a window.
Rule: when the journal has nothing more at the moment, what is committed is handed out at once and becomes a
checkpoint; what is not stays in the window.
Rule: space that a ZERO or a RESIZE freed may be usable only after a checkpoint; so a frame with one that runs alone is
handed out by itself, and where space is missing a checkpoint is made between two frames.
Rule: the LSN that the store may reach is raised durably before a window changes its first byte.
Rule: everything handed out is in the store before a checkpoint of it is begun (checkpointer.py).
Bound: one window of payload; the sums of CHECKPOINT_PAGES, and of a window, between two checkpoints.

Runs in one thread, and not in the main thread (inflight.py says why); `cancel` and `statistics` are for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from mirrortool import clock
from mirrortool.errors import (
    ChangedOutsideError,
    JournalError,
    NoSpaceError,
    UnusableVolumeError,
)
from mirrortool.journal.bounds import check_inside
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.format import FRAME_HEADER
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.mirror.checkpoint import Checkpoint
from mirrortool.operation import Batch, CommitKind, Kind
from mirrortool.ratelimit import Pace
from mirrortool.replay.checkpointer import Checkpointer, ReplayProgress
from mirrortool.replay.coalesce import Inline, Stretch, has_inline, stretches
from mirrortool.replay.engine import ReplayEngine
from mirrortool.replay.framesource import FrameSource
from mirrortool.replay.preflight import check_sizes, find_changed_page
from mirrortool.replay.readahead import ReadAhead
from mirrortool.replay.replayoptions import ReplayOptions
from mirrortool.replay.resync import Resync
from mirrortool.replay.tuner import Tuner
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet

CHECKPOINT_PAGES = 1 << 16
CHECKPOINT_SECONDS = 1.0
FORGET_PAGES = 1 << 12
"""With fewer sums waiting, a large ZERO removes its own from them; with more, writing them to the disk costs less."""


class Delegator:
    """One replay, from a mirror's checkpoint to the end of its frames: the storage management task (910)."""

    def __init__(
        self,
        reader: JournalReader,
        store: Store,
        sums: PageSums,
        engine: ReplayEngine,
        tuner: Tuner,
        checkpointer: Checkpointer,
        source: FrameSource,
        options: ReplayOptions,
        *,
        resync: Resync | None = None,
        known_bad: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Replay the frames of `source`, which reads with `reader`, from the mirror's checkpoint on.

        Args:
            options: of these, how large the volumes and windows may be, and how fast the journal is read.
            resync: what the source gives first: a base; `reader` is after it.
            known_bad: runs of pages that are not looked at before the first write.
        """
        self._resync = resync
        self._max_bytes = options.max_bytes
        self._known_bad = known_bad
        self._reader = reader
        self._store = store
        self._sums = sums
        self._engine = engine
        self._tuner = tuner
        self._checkpointer = checkpointer
        self._source = source
        self._frames = ReadAhead(source, Pace(options.bytes_per_second))
        self._window_bytes = options.window_bytes
        self._window: list[tuple[FrameHeader, Batch]] = []
        self._window_filled = 0
        self._volumes = store.volumes  # as of the newest frame read; the store's are as of the newest handed out
        self._checkpointed_at = clock.monotonic()
        self._is_cancelled = False
        self._is_partial = False  # whether the store holds some of the window that is being handed out
        self._handed_out = checkpointer.checkpoint
        # Where the newest checkpoint is, done or begun, if nothing was handed out after it by then.
        self._complete_at = self._handed_out.position if self._handed_out.is_finished else None
        self._counts = checkpointer.progress  # of everything handed out; replaced as a whole

    def statistics(self) -> tuple[ReplayProgress, Lsn]:
        """What was replayed and is durable, and the LSN up to which more was handed out; from any thread."""
        durable = self._checkpointer.progress
        return durable, self._counts.lsn

    def cancel(self) -> None:
        """Stop at the next window, with the mirror at a commit if possible; from any thread."""
        self._is_cancelled = True
        self._frames.stop()

    def run(self) -> None:
        """Replay to the end of the frames, or as far as the journal is sound, and leave a checkpoint.

        Raises:
            JournalError: the journal is damaged or torn before that; the mirror is at the last commit before.
            UnusableVolumeError: a volume grows larger than its device or the limit; likewise.
            NoSpaceError: the store is full; the mirror is where the checkpoint says.
            HostError: the store or the journal failed; the mirror is where the checkpoint says, or rolling forward.
        """
        self._check_not_changed()
        if self._resync:
            self._checkpointer.begin_resync(self._resync.lsn, ignores_table=self._resync.ignores_table)
            self._handed_out, self._complete_at = self._checkpointer.checkpoint, None
        first = self._handed_out
        try:
            damage = self._hand_out_all()
            # One that handed nothing out makes a checkpoint, too: that compares the sums.
            if self._complete_at != self._handed_out.position or self._handed_out is first:
                self._checkpoint(is_complete=True)
            self._checkpointer.finish_for_now()
        except NoSpaceError:
            if not self._is_partial:  # reserving failed: no byte of the window was changed
                self._checkpoint(is_complete=True)
                self._checkpointer.finish()
            raise
        finally:
            self._checkpointer.close()
        if damage:
            raise damage

    def _hand_out_all(self) -> JournalError | UnusableVolumeError | None:
        """Hand out all frames, or those up to the last commit before what cannot be replayed: the reason."""
        damage = None
        try:
            with self._frames as frames:
                for frame in frames:
                    if frame is None:
                        self._checkpoint_now()
                    else:
                        self._add(*frame)
                    if self._is_cancelled:
                        break
        except (JournalError, UnusableVolumeError) as error:
            damage = error
        self._hand_out_commits()
        return damage

    def _checkpoint_now(self) -> None:
        """The journal has nothing more at the moment: what is committed becomes a checkpoint now."""
        self._hand_out_commits()
        if self._complete_at == self._handed_out.position:
            self._checkpointer.finish_for_now()
        else:
            self._checkpoint(is_complete=True)

    def _add(self, header: FrameHeader, batch: Batch) -> None:
        """Add a frame to the window, and hand the window out when it is full."""
        self._volumes = check_inside(header, batch, self._volumes, self._reader.journal.path, self._check_sizes)
        self._window.append((header, batch))
        self._window_filled += len(batch.payload) + 64 * len(batch)
        window_bytes = self._tuner.window_bytes(self._window_bytes)
        if self._window_filled < window_bytes:
            return
        self._hand_out_commits()
        if self._window_filled >= window_bytes:
            self._hand_out(len(self._window))

    def _check_sizes(self, volumes: VolumeSet) -> None:
        check_sizes(volumes, self._store, self._max_bytes)

    def _hand_out_commits(self) -> None:
        """Hand out the window up to its last commit, if it has one."""
        ends = [number for number, (header, _) in enumerate(self._window, 1) if header.is_commit]
        if ends:
            self._hand_out(ends[-1])

    def _hand_out(self, count: int) -> None:
        frames, self._window = self._window[:count], self._window[count:]
        self._window_filled = sum(len(batch.payload) + 64 * len(batch) for _, batch in self._window)
        last = frames[-1][0]
        if self._checkpointer.is_space_low():
            self._checkpoint(is_complete=True)
            self._checkpointer.finish()
        self._tuner.begin_window()
        for part in self._parts(frames):
            self._hand_out_part(part)
        self._is_partial = True  # it may sync: where that fails, no checkpoint can follow
        self._tuner.end_window(sum(len(batch.payload) for _, batch in frames))
        self._is_partial = False
        is_due = clock.monotonic() - self._checkpointed_at > CHECKPOINT_SECONDS
        if self._checkpointer.page_count >= CHECKPOINT_PAGES or is_due:
            # To claim more than the window now saves claiming it for the next one; if one will come.
            self._checkpoint(is_complete=last.position.lsn >= self._source.sure_lsn)

    def _parts(self, frames: list[tuple[FrameHeader, Batch]]) -> Iterator[list[tuple[FrameHeader, Batch]]]:
        """The frames of a window; each that has an operation which runs alone by itself.

        What such a one frees can be used after a checkpoint only, and in the middle of a part none can be made.
        """
        for is_alone, group in groupby(frames, lambda frame: has_inline(frame[1], self._store.page_size)):
            part = list(group)
            yield from ([frame] for frame in part) if is_alone else [part]

    def _hand_out_part(self, frames: list[tuple[FrameHeader, Batch]]) -> None:
        """Hand out frames together; one by one where they need less room so, as later ones use what earlier ones free.

        Where freed space can be used at once that is no help, and a full store stays at the commit before.
        """
        try:
            self._hand_out_together(frames)
        except NoSpaceError:
            if self._is_partial or len(frames) == 1 or not self._store.frees_late:
                raise
            for frame in frames:
                self._hand_out_together([frame])

    def _hand_out_together(self, frames: list[tuple[FrameHeader, Batch]]) -> None:
        last = frames[-1][0]
        batches, first_lsns = (batch for _, batch in frames), (_own_lsn(header) for header, _ in frames)
        for part in stretches(batches, self._store.page_size, first_lsns):
            if isinstance(part, Inline):
                self._run_inline(part, last)
            elif part.pieces.firsts:
                self._delegate(part, last)
        self._note_handed_out(frames)

    def _delegate(self, stretch: Stretch, last: FrameHeader) -> None:
        self._reserve(stretch)
        if self._checkpointer.page_count >= CHECKPOINT_PAGES:  # of zeros, which take no space in a window
            self._bring_up_sums()
        self._checkpointer.check_space(len(stretch.sums))
        self._raise_reached(last)
        self._checkpointer.note(stretch.sums)
        self._engine.delegate(stretch, last.position.lsn)

    def _reserve(self, stretch: Stretch) -> None:
        """Make sure that a stretch finds space; what was freed becomes usable with a checkpoint, if one can be made."""
        for is_last in (False, True):
            try:
                self._store.reserve(stretch.pieces.written(), len(stretch.sums) * self._store.page_size)
                return
            except NoSpaceError:
                if is_last or self._is_partial:
                    raise
                self._engine.wait_drained()  # what frees space may not have been done yet
                if not self._store.frees_wait:
                    raise
            self._checkpoint(is_complete=True)
            self._checkpointer.finish()

    def _run_inline(self, operation: Inline, last: FrameHeader) -> None:
        if operation.kind == Kind.RESIZE or self._checkpointer.page_count >= FORGET_PAGES:
            self._bring_up_sums()
        self._raise_reached(last)
        if operation.kind == Kind.RESIZE:
            volume = self._store.volumes.starting_at(operation.page)
            assert volume is not None
            kept, pages = operation.count // self._store.page_size, self._store.volumes.page_count(volume)
            if kept < pages:
                self._checkpointer.forget(operation.page + kept, pages - kept)
            self._engine.run_inline(operation)
            self._sums.resize(volume.name, operation.count)
        else:
            self._checkpointer.forget(operation.page, operation.count)
            self._engine.run_inline(operation)
            self._sums.zero(operation.page, operation.count)

    def _bring_up_sums(self) -> None:
        """Bring the sums up to what was handed out, in the middle of a window."""
        self._is_partial = True  # sums that were written in part cannot be written again
        self._engine.wait_drained()
        self._checkpointer.bring_up_sums()

    def _raise_reached(self, last: FrameHeader) -> None:
        """Durably allow the store to go as far as this frame, and in one step as far as its file certainly goes.

        No further than the source is sure of: a mirror that had reached what its journal never gets would be rolling
        forward for ever.
        """
        self._is_partial = True
        if not self._checkpointer.keep_reached(last.position.lsn):
            sure = self._source.sure_lsn
            following = [start for start in self._reader.journal.file_starts() if start > last.position.lsn]
            step = following[0] - 1 if following else sure
            self._checkpointer.raise_reached(Lsn(max(last.position.lsn, min(step, sure))))

    def _note_handed_out(self, frames: list[tuple[FrameHeader, Batch]]) -> None:
        last, before = frames[-1][0], self._handed_out
        commit_lsn, commit_kind = before.commit_lsn, before.commit_kind
        for header, batch in frames:
            if header.is_commit:
                commit_lsn, commit_kind = header.position.lsn, CommitKind(batch.pages[-1])
        self._handed_out = Checkpoint(
            last.position,
            last.state_sum,
            last.time_ns,
            last.is_commit,
            commit_lsn,
            NO_LSN,
            self._store.volumes.sizes,
            commit_kind,
        )
        if last.position.lsn < before.resync_lsn:
            self._handed_out = replace(self._handed_out, resync_lsn=before.resync_lsn, resync_all=before.resync_all)
        self._is_partial = False
        self._counts = ReplayProgress(
            last.position.lsn,
            self._counts.payload_bytes + sum(len(batch.payload) for _, batch in frames),
            self._counts.operations + sum(len(batch) for _, batch in frames),
            self._counts.journal_bytes
            + sum(
                FRAME_HEADER.size + header.body_bytes
                for header, _ in frames
                if header.position.lsn > before.resync_lsn  # up to that LSN it is a base, not the journal's
            ),
        )

    def _checkpoint(self, *, is_complete: bool) -> None:
        """Have what was handed out made durable; `is_complete` if nothing after it was handed out."""
        self._engine.wait_drained()
        self._checkpointer.begin(self._handed_out, self._counts, is_complete=is_complete)
        self._complete_at = self._handed_out.position if is_complete else None
        self._checkpointed_at = clock.monotonic()

    def _in_flight(self) -> Iterator[Batch]:
        """What the replay before may have written after the checkpoint; as far as the journal is sound."""
        checkpoint = self._checkpointer.checkpoint
        if checkpoint.is_finished:
            return
        if self._resync:
            yield from self._resync.sums()
        start = self._reader.position if self._resync else checkpoint.position
        with suppress(JournalError), JournalReader(self._reader.journal, start) as reader:
            for _ in reader.up_to(checkpoint.reached_lsn):
                yield reader.batch(payload=False)

    def _check_not_changed(self) -> None:
        """Before the first write: some pages are what the sums say, so that nothing else wrote to the mirror."""
        if self._resync and self._resync.ignores_table:
            return  # the sums do not say what they are
        wrong = find_changed_page(
            self._store, self._sums, self._in_flight(), self._known_bad, names=self._checkpointer.held
        )
        if wrong is not None:
            raise ChangedOutsideError(
                f"page {wrong:#x} is not as the last replay left it",
                where=self._checkpointer.mirror_path,
                remedy="mirrortool verify lists what differs; stop whatever writes to the mirror",
            )


def _own_lsn(header: FrameHeader) -> Lsn:
    """The LSN of a frame's first operation; NO_LSN in a frame of a base (resync.py)."""
    is_own = header.first_lsn + header.operations - 1 == header.position.lsn
    return header.first_lsn if is_own else NO_LSN
