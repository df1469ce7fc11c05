"""The recorder: all changes of the volumes go through it into the journal, and from there to the volumes.

    change       widen to whole pages, append one frame, keep the pages in memory
    flush        append a COMMIT and make the journal durable                           (journalside.py)
    write-back   what is durable goes to the volumes; now and then that is a checkpoint (volumeside.py)

Rule (write-ahead, no-steal): a change is acknowledged when its frame is appended, durable when a flush returns, and
reaches its volume only after it is durable. So after kill -9 or a power cut redo alone makes journal and volumes agree.

Not here: the protocol (nbd/), the initial scan (initialscan.py), what to do when the journal has no room (detach.py).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from mirrortool import malloc
from mirrortool.address import split_at
from mirrortool.change import Change
from mirrortool.checksum import Buffer
from mirrortool.errors import MirrortoolError, NoSpaceError, NotComparableError, UsageError
from mirrortool.journal.point import MARK_NAMES, is_mark_name
from mirrortool.journal.position import Position
from mirrortool.lifecycle import closed
from mirrortool.lsn import Lsn
from mirrortool.operation import CommitKind
from mirrortool.record.capture import Capture
from mirrortool.record.detach import RESERVE_BYTES_DEFAULT, Detachment, WhenFull
from mirrortool.record.journalside import JournalSide
from mirrortool.record.recovery import OpenJournal
from mirrortool.record.volumeside import VolumeSide
from mirrortool.record.widen import Widened, needs_reading
from mirrortool.record.writeback import Generation, overlaid, waiting_pages
from mirrortool.store.interface import Store
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume, VolumeSet
from mirrortool.wording import byte_count, counted

FRAME_BYTES = 8 << 20
WRITE_BYTES_MAX = 32 << 20
"""A longer write is cut: a frame holds 64 MiB."""
FRAME_CHANGES = 4096
"""Changes are cut into frames of about this many."""
_ZERO_PAGES = 1 << 18
"""A large ZERO that is made without the journal is cut into this many pages."""
PAGE_COST_BYTES = 256
"""What a waiting page costs besides its content."""
ZERO_BYTES_MAX = 64 << 20
"""A larger ZERO is done at once, by the segment, instead of waiting in memory page by page."""


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """A recorder at one moment.

    Attributes:
        head_lsn, durable_lsn, checkpoint_lsn: of the newest frame, the newest that survives a power cut, and the newest
            that the volumes hold durably.
        commit_lsn, commit_time_ns: the newest commit; 0 if there is none.
        operations, bytes_written, bytes_journaled: since the start; bytes that clients wrote, and that frames took.
        bytes_waiting: acknowledged, and not on the volumes yet.
        sync_seconds: what the newest fdatasync of the journal took.
        problem: why changes are refused, or not journaled; or nothing.
        problem_exit_code: that of mirrortool(1) for it; 0 if nothing is wrong.
        incomplete: volumes that are not wholly journaled yet.
    """

    head_lsn: Lsn
    durable_lsn: Lsn
    checkpoint_lsn: Lsn
    commit_lsn: Lsn
    commit_time_ns: int
    operations: int
    bytes_written: int
    bytes_journaled: int
    bytes_waiting: int
    sync_seconds: float
    problem: str
    incomplete: Collection[str]
    problem_exit_code: int = 0


class Recorder:
    """A journal open for live recording, and its volumes (510, FIG. 5); `with` stops it cleanly.

    Safe to use from many threads. Volumes are named, offsets and lengths in bytes, at any alignment.

    Attributes:
        volumes: with their sizes; fixed while the recorder runs.
        torn: where recovery moved a torn tail, None if there was none.
        redone: how many frames recovery wrote to the volumes again.
        capture: for a caller that journals what the volumes have already.
    """

    def __init__(
        self,
        journal_path: str,
        *,
        take_over: bool = False,
        background: bool = True,
        when_full: WhenFull = WhenFull.STOP,
        reserve: int | None = None,
    ) -> None:
        """Lock, recover and open journal and volumes.

        Args:
            take_over: accept volumes that changed outside; they need an initial scan, and commits say so until it ends.
            background: write back in a thread of its own; otherwise the caller calls `write_back` and `attach`.
            when_full: refuse changes when the journal has no room, or do them and journal them later.
            reserve: bytes kept allocated for the latter.
        Raises:
            ChangedOutsideError: a volume is not as the recorder left it, and was not touched.
            MirrortoolError: see OpenJournal and HeldVolumes.
        """
        malloc.keep_freed_memory()
        with ExitStack() as opening:
            opened = opening.enter_context(OpenJournal(journal_path, doing="record", hold=True, take_over=take_over))
            self.journal = opened.journal
            self.volumes: VolumeSet = opened.sums.volumes
            self.page_size = self.volumes.page_size
            self.torn, self.redone = opened.torn, opened.redone
            everything = {volume.name for volume in self.volumes}
            self._journal = JournalSide(opened, everything if take_over else set(opened.checkpoint.incomplete))
            self._volumes = VolumeSide(opened, self._journal)
            self.capture = Capture(self._journal, self._volumes)
            kept = RESERVE_BYTES_DEFAULT if reserve is None else reserve
            self._detachment = Detachment(
                self.journal, self._journal, self._volumes, self.capture,
                reserve=kept if when_full == WhenFull.DETACH else None,
            )  # fmt: skip
            self._opened = opening.pop_all()
        self._operations = self._bytes_written = 0
        self._is_closed = False
        if background:
            self._volumes.start(then=self._look_after)

    @classmethod
    def open(cls, journal_path: str) -> Recorder:
        """Lock, recover and open; see the constructor."""
        return cls(journal_path)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop cleanly: all that was acknowledged is committed, durable and on the volumes. A second call does nothing.

        Raises:
            HostError: a volume cannot be written; the journal has its pages, and the next start redoes them.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._volumes.stop()
        try:
            if not self.failure:
                self._volumes.write_back(checkpoint=True)
        finally:
            with self._journal.lock:  # a thread that comes late finds the journal closed
                self._opened.close()

    def write(self, volume: str, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write bytes; journaled when it returns, and durable too with `fua`."""
        kept = data if isinstance(data, bytes) else bytes(data)  # the caller may use the buffer again
        self.change(volume, [Change(offset, len(kept), kept)])
        if fua:
            self.flush()

    def zero(self, volume: str, offset: int, length: int, *, fua: bool = False) -> None:
        """Make bytes read as zeros, and give whole pages' space back; as `write`."""
        self.change(volume, [Change(offset, length, None)])
        if fua:
            self.flush()

    def change(self, name: str, changes: Sequence[Change]) -> None:
        """Journal changes of one volume, in order, in as few frames as hold them.

        Raises:
            UsageError: one is outside the volume, or the recorder is closed; none was made.
            NoSpaceError: the journal's file system or the volume's is full; some may be made. It may succeed later.
            HostError: the journal, or the volume, cannot be written.
        """
        self._require_open()
        volume = self._volume(name)
        for change in changes:
            self._check_inside(volume, change)
        if not any(change.length for change in changes):
            return
        for part in _frames(changes, self.page_size):
            try:
                self._change(volume, part)
            except NoSpaceError:
                if self._volumes.is_volumes_problem or not self._detachment.is_allowed:
                    raise
                self._detachment.detach()
                self._change(volume, part)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a volume, as the newest change left them.

        Raises:
            UsageError: they lie outside the volume, or the recorder is closed.
        """
        self._check_inside(self._volume(name), Change(offset, length, None))
        buffer = bytearray(length)
        self.read_into(name, offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with a volume's bytes from `offset` on, as the newest change left them."""
        self._require_open()
        volume = self._volume(name)
        self._check_inside(volume, Change(offset, len(buffer), None))
        if not buffer:
            return
        generations = self._volumes.waiting.generations  # before the volume is read; see writeback.py
        self.store.read_bytes(name, offset, buffer)
        if any(generations):
            self._lay_over(volume.start + offset, buffer, generations)

    def _lay_over(self, address: int, buffer: memoryview, generations: tuple[Generation, Generation]) -> None:
        """Put what waits over what was read from the volume."""
        size = self.page_size
        first, last = address // size, (address + len(buffer) - 1) // size
        for page in waiting_pages(generations, first, last - first + 1):
            content = generations[0].get(page)
            if content is None:
                content = generations[1][page]
            at = page * size - address
            start, end = max(0, at), min(at + size, len(buffer))
            buffer[start:end] = memoryview(content)[start - at : end - at]

    def extents(self, name: str, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """Runs of a range in order: (bytes, whether it is a hole, which reads as zeros)."""
        self._require_open()
        volume = self._volume(name)
        self._check_inside(volume, Change(offset, length, None))
        if not length:
            return
        generations = self._volumes.waiting.generations  # before the volume is asked
        start, stop = volume.start + offset, volume.start + offset + length
        first, end = start // self.page_size, -(-stop // self.page_size)
        runs = self.store.data_runs(first, end - first)
        waiting = [(page, self._is_hole(generations, page)) for page in waiting_pages(generations, first, end - first)]
        for low, high, is_hole in overlaid(runs, waiting, first, end):
            low, high = max(start, low * self.page_size), min(stop, high * self.page_size)
            yield high - low, is_hole

    def _is_hole(self, generations: tuple[Generation, Generation], page: int) -> bool:
        return (generations[0].get(page) or generations[1].get(page)) is self._volumes.waiting.hole

    def flush(self) -> None:
        """Everything that was acknowledged before the call is durable when it returns.

        A COMMIT says so, unless the journal has no room for it.

        Raises:
            HostError: the journal's device failed; the recorder has stopped.
        """
        self._require_open()
        self._journal.flush()
        self._detachment.sync()

    def commit(self, name: str | None = None, *, durable: bool = True) -> Position:
        """Append a commit, or a mark if it has a name, of everything until now.

        Raises:
            UsageError: a mark cannot have this name, or the recorder is closed.
            NotComparableError: the journal lacks some of what the volumes have; or, for a mark, a volume is incomplete.
        """
        self._require_open()
        if name is not None and not is_mark_name(name):
            raise UsageError(f"{name!r} is not a mark's name: {MARK_NAMES}")
        with self._journal.lock:
            self._require_markable(name)
            position = self._journal.commit(CommitKind.FLUSH, name)
        if durable:
            self._journal.sync()
        return position

    def _require_markable(self, name: str | None) -> None:
        if not self._journal.may_commit:
            raise NotComparableError(
                "the journal had no room, and lacks some of what the volumes have",
                where=self.journal.path,
                remedy="make room, and wait until it has caught up",
            )
        if name and self._journal.incomplete:
            raise NotComparableError(
                f"volume {min(self._journal.incomplete)} is not wholly journaled yet, so there is nothing to mark",
                where=self.journal.path,
                remedy="wait for the initial scan",
            )

    def write_back(self, *, checkpoint: bool = False) -> None:
        """Commit, make durable, and bring everything that waits to the volumes; see VolumeSide.write_back."""
        self._require_open()
        self._volumes.write_back(checkpoint=checkpoint)

    def _look_after(self) -> None:
        """Every second, after each write-back; also while it is being closed."""
        self._detachment.attach()
        self._journal.beat()

    def sync_volumes(self) -> None:
        """Make durable what the volumes have by now."""
        self._require_open()
        self._volumes.sync()

    def attach(self) -> bool:
        """If the journal had no room, let it catch up; see Detachment.attach."""
        self._require_open()
        return self._detachment.attach()

    @property
    def failure(self) -> MirrortoolError | None:
        """Why nothing more can be recorded; None if it can."""
        return self._journal.failure

    @property
    def ending(self) -> threading.Event:
        """Set when the recorder fails; setting it also ends what runs the recorder."""
        return self._journal.ending

    @property
    def store(self) -> Store:
        """The volumes, without what waits to be written."""
        return self._volumes.store

    @property
    def table(self) -> PageSums:
        """The sums as of the newest checkpoint."""
        return self._journal.sums.table

    @property
    def operations(self) -> int:
        """How many operations clients have sent since the start."""
        return self._operations

    @property
    def incomplete(self) -> Collection[str]:
        """The volumes that are not wholly journaled yet."""
        return frozenset(self._journal.incomplete)

    def complete(self, name: str) -> None:
        """A volume is complete: the journal had all of it, at one moment or another, and what changed since."""
        with self._journal.lock:
            self._journal.incomplete.discard(name)
            if not self._journal.incomplete and self._journal.may_commit:
                with suppress(NoSpaceError):
                    self._journal.commit(CommitKind.SCAN)
        self.write_back(checkpoint=True)

    def statistics(self) -> RecorderStatistics:
        """How it stands; from any thread."""
        journal, volumes = self._journal, self._volumes
        return RecorderStatistics(
            journal.position.lsn,
            journal.durable.lsn,
            volumes.checkpoint.lsn,
            journal.committed.lsn,
            journal.commit_time_ns,
            self._operations,
            self._bytes_written,
            journal.bytes_journaled,
            volumes.waiting.bytes_waiting,
            journal.sync_seconds,
            self._problem(),
            sorted(journal.incomplete),
            self._problem_exit_code(),
        )

    def _problem(self) -> str:
        problem = self.failure or self._volumes.problem
        if problem:
            return f"changes are refused: {problem}"
        lacking = self._detachment.segment_count
        if lacking >= 0:
            return f"the journal has no room, and lacks changes in {counted(lacking, 'segment')}"
        full = self._journal.full
        return f"the journal has no room, and clients get ENOSPC: {full.what}" if full else ""

    def _problem_exit_code(self) -> int:
        problem = self.failure or self._volumes.problem
        if problem:
            return problem.exit_code
        is_full = self._detachment.segment_count >= 0 or self._journal.full
        return NoSpaceError.exit_code if is_full else 0

    def _change(self, volume: Volume, changes: Sequence[Change]) -> None:
        """One frame. Where no page changes in part, it is summed and compressed before the lock is acquired."""
        if changes[0].length > ZERO_BYTES_MAX and changes[0].data is None:
            self._zero_much(volume, changes[0])
            return
        is_partial = needs_reading(changes, self.page_size)
        widened = None if is_partial else self._widen(volume, changes)
        with self._journal.lock:
            self._volumes.wait_for_room()
            self._append(widened or self._widen(volume, changes))
        self._volumes.hurry()

    def _widen(self, volume: Volume, changes: Sequence[Change]) -> Widened:
        return Widened(changes, volume, self.page_size, self._volumes.waiting.hole, self._read_page)

    def _append(self, widened: Widened) -> None:
        """Journal a frame and keep its pages, or change the volumes without the journal; under the journal's lock."""
        if self._detachment.leaves_out(widened.pages):
            self._detachment.change(widened.content)
        else:
            self._journal.append(widened.batch, widened.stored, widened.pages, widened.sums, captured=False)
            size = len(widened.batch.payload) + PAGE_COST_BYTES * len(widened.pages)
            self._volumes.waiting.add(widened.content, size)
            self.capture.touch(widened.pages)
        self._operations += len(widened.batch.kinds)
        self._bytes_written += len(widened.batch.payload)

    def _read_page(self, page: int) -> Buffer:
        """A whole page as the newest change left it; under the journal's lock."""
        for generation in self._volumes.waiting.generations:
            content = generation.get(page)
            if content is not None:
                return content
        volume = self.volumes.find(page)
        assert volume is not None, "checked before it was changed"
        offset = page * self.page_size - volume.start
        buffer = bytearray(self.page_size)
        self.store.read_bytes(volume.name, offset, memoryview(buffer)[: volume.size - offset])
        return buffer

    def _zero_much(self, volume: Volume, change: Change) -> None:
        """A large ZERO: its edges as changes, the pages between by the segment, when nothing waits."""
        size = self.page_size
        start = -(-change.offset // size) * size
        end = (change.offset + change.length) // size * size
        for low, high in ((change.offset, start), (end, change.offset + change.length)):
            if low < high:
                self._change(volume, [Change(low, high - low, None)])
        if not change.keep_allocated:
            self._zero_at_once((volume.start + start) // size, (end - start) // size)
            return
        for low in range(start, end, ZERO_BYTES_MAX):
            self._change(volume, [Change(low, min(ZERO_BYTES_MAX, end - low), None, True)])

    def _zero_at_once(self, page: int, count: int) -> None:
        with self._volumes.drained():
            if self._detachment.leaves_out(range(page, page + count)):
                self._detachment.note(range(page, page + count))
                for first, number in split_at(page, count, _ZERO_PAGES):
                    self._detachment.change(dict.fromkeys(range(first, first + number), self._volumes.waiting.hole))
                return
            self._journal.append_zero(page, count)
            self.capture.touch_run(page, count)
            self._operations += 1
            self._volumes.zero_now(page, count)

    def _require_open(self) -> None:
        if self._is_closed:
            raise closed("recorder", self.journal.path)

    def _volume(self, name: str) -> Volume:
        if name not in self.volumes:
            raise UsageError(f"the journal has no volume {name}", where=self.journal.path)
        return self.volumes[name]

    def _check_inside(self, volume: Volume, change: Change) -> None:
        if change.offset < 0 or change.length < 0 or change.offset + change.length > volume.size:
            raise UsageError(
                f"{byte_count(change.length)} at offset {change.offset} lie outside volume {volume.name}",
                where=self.journal.path,
            )


def _frames(changes: Sequence[Change], page_size: int) -> Iterator[Sequence[Change]]:
    """Cut changes into what one frame holds; a large ZERO comes alone."""
    if len(changes) == 1 and 0 < changes[0].length <= WRITE_BYTES_MAX:
        yield changes
        return
    begun: list[Change] = []
    length = 0
    for change in _bounded(changes):
        is_much = change.data is None and change.length > ZERO_BYTES_MAX
        widened = -(-(change.offset % page_size + change.length) // page_size) * page_size
        if begun and (is_much or length + widened > FRAME_BYTES or len(begun) >= FRAME_CHANGES):
            yield begun
            begun, length = [], 0
        if is_much:
            yield [change]
            continue
        begun.append(change)
        length += widened
    if begun:
        yield begun


def _bounded(changes: Sequence[Change]) -> Iterator[Change]:
    """None without bytes, and none of more data than one frame holds."""
    for change in changes:
        if change.data is None or change.length <= WRITE_BYTES_MAX:
            if change.length:
                yield change
            continue
        view = memoryview(change.data)
        for start in range(0, change.length, WRITE_BYTES_MAX):
            part = view[start : start + WRITE_BYTES_MAX]
            yield Change(change.offset + start, len(part), part)
