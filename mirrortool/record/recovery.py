"""Recovery: opens a journal for appending; after a crash, redoes what the journal has and the volumes may lack.

Rule: a torn tail is moved to `torn/`, never deleted. It was never acknowledged as durable, but it may be all that is
left of a write that the user wants to see.
Rule: intended frames after the checkpoint are written to the volumes again, captured ones never: the volume had these
before the journal did. Nothing is written before the volumes are known to be as the recorder left them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

from mirrortool import clock, files, hostinfo
from mirrortool.checksum import unpack_sums
from mirrortool.errors import CorruptJournalError, HostError, NotAJournalError, TornJournalError, UsageError
from mirrortool.files import File
from mirrortool.journal.bounds import check_inside
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.recordercheckpoint import RecorderCheckpoint, VolumeRecord
from mirrortool.journal.writer import JournalWriter
from mirrortool.journaledsums import sums_as_of
from mirrortool.lsn import Lsn
from mirrortool.operation import Batch, Kind
from mirrortool.record.heldvolumes import STALL_NS, HeldVolumes
from mirrortool.record.primaryvolumes import adopt, check_own
from mirrortool.store.interface import PageWriter
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume, VolumeSet

_COPY_BYTES = 1 << 20
_UNTORN_BYTES = 4096
"""kill -9 may cut a write(2) short between two pages of memory, and so tear a larger page of a volume."""
_EXPECTED_PAGES_MAX = 1 << 14
"""An operation that zeroes more is redone without comparing its pages first, as that would read them all."""


class OpenJournal:
    """A journal with its lock, writer and sums; `with` closes them, cleanly if the checkpoint covers everything.

    Attributes:
        checkpoint: the recorder's; as it was found, or as recovery or `save_checkpoint` left it.
        torn: where a torn tail was moved, None if there was none.
        held: the volumes, if they are to be held.
        redone: how many frames were written to the volumes again.
        sums_are_damaged: set when the table of sums is found to be damaged.
    """

    def __init__(self, path: str, *, doing: str = "record", hold: bool = False, take_over: bool = False) -> None:
        """Lock, recover and open.

        Args:
            doing: what for, to tell a process that finds the lock held; see lockholder.Worker.
            hold: open the volumes for writing and hold them, too.
            take_over: the volumes count as they are now, whatever the journal has that they lack; a scan follows.
        Raises:
            LockedError: another recorder has it, or another process a volume that is to be held or redone.
            ChangedOutsideError: a volume is not as the recorder left it; it was not touched.
            NotAJournalError: this host has only a copy of the journal, not the primary's.
            JournalError: the journal is damaged; no journal file was changed.
        """
        self.journal = Journal(path)
        self.torn: str | None = None
        self.redone = 0
        self.sums_are_damaged = False
        self.held: HeldVolumes | None = None
        self._redone_records: Mapping[str, VolumeRecord] = {}
        self._written_ns = 0  # a volume written not much later than this does not count as changed outside
        with ExitStack() as opening:
            opening.enter_context(self.journal.lock(doing))
            self.journal = Journal(path)  # as it is under the lock
            if hold:
                self.journal.next_scan = None  # a recorder that serves is seen at its lock
            self.checkpoint = require_checkpoint(self.journal, take_over)
            paths = self.journal.volume_paths()
            check_own(paths, take_over=take_over)
            if hold:
                self.held = opening.enter_context(HeldVolumes(self.journal))
            self.sums = _open_sums(self.journal, self.checkpoint)
            opening.callback(lambda: self.sums.close())
            self.writer = self._recover(take_over)
            opening.callback(self.writer.abandon)
            if take_over:  # durably, before anything is journaled: after a crash too, nothing older is redone into them
                adopt(paths)
                everything = [volume.name for volume in self.sums.volumes]
                self.save_checkpoint(self.held.records() if self.held else {}, incomplete=everything)
            elif self.redone:
                self.save_checkpoint(self._redone_records)
            if self.held:
                self.held.note_as_left(are_synced=False)
            else:
                files.remove(self.journal.seen_path)  # a volume that is not held may be written by any process
            self._opened = opening.pop_all()

    def __enter__(self) -> OpenJournal:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            # Without a clean end the next start computes the sums anew, and compares them with the journal's.
            if not self.writer.is_dead and self._is_covered() and self._are_volumes_known():
                self._sync_sums()  # segments that were computed anew, if no checkpoint came since
                self.writer.close()
        finally:
            self._opened.close()

    def _is_covered(self) -> bool:
        return self.writer.position == self.checkpoint.position and not self.sums_are_damaged

    def _are_volumes_known(self) -> bool:
        """Whether recorder.json knows the volumes as they are; not if they were written without the journal."""
        if self.held:
            self.held.note_as_left(are_synced=True)
        return self.held is not None or not files.exists(self.journal.detached_path)

    def save_checkpoint(
        self,
        records: Mapping[str, VolumeRecord],
        *,
        position: Position | None = None,
        incomplete: Collection[str] | None = None,
    ) -> None:
        """Note that sums and volumes are as of a position, by default the durable end; makes the sums durable first.

        Args:
            records: of volumes that changed.
            incomplete: the volumes that are not wholly journaled; by default those of before.
        """
        self._sync_sums()
        checkpoint = RecorderCheckpoint(
            position or self.writer.durable,
            self.sums.state_sum,
            clock.now_ns(),
            hostinfo.boot_id(),
            {name: self._as_journaled(name, record) for name, record in {**self.checkpoint.volumes, **records}.items()},
            self.checkpoint.incomplete if incomplete is None else frozenset(incomplete),
        )
        self.journal.save_recorder_checkpoint(checkpoint)
        self.checkpoint = checkpoint  # only now: what could not be noted must not count as noted

    def _sync_sums(self) -> None:
        try:
            self.sums.sync()
        except HostError:
            self.sums_are_damaged = True  # the kernel may have dropped any of them, and would not say so again
            raise

    def _as_journaled(self, name: str, record: VolumeRecord) -> VolumeRecord:
        """With the size that the journal gives the volume; a RESIZE that a device or file got since is news."""
        return replace(record, size=self.sums.volumes[name].size) if name in self.sums.volumes else record

    def _recover(self, take_over: bool) -> JournalWriter:
        was_clean = self.journal.clean_end is not None
        with JournalReader(self.journal, self.checkpoint.position) as reader:
            known = reader.file_first_lsn, reader.offset
            ahead = self._look_ahead(reader)
            if not was_clean:
                self._write_again(reader, known)
            if take_over:
                if self.held:
                    self.held.check_sizes(self.sums.volumes)
                self._redo(None, was_clean)
            else:
                self._check_and_redo(ahead, was_clean, reader.time_ns)
            if self.sums.state_sum != reader.state_sum:
                self._make_sums_anew(reader)
            return JournalWriter(self.journal, reader, was_cut=self.torn is not None)

    def _look_ahead(self, reader: JournalReader) -> _Ahead:
        """Read to the end without changing anything but a torn tail, which is moved away."""
        ahead = _Ahead(self.sums.volumes)
        try:
            while header := reader.next_header():
                ahead.add(header, reader.batch(payload=False), self.journal.path)
        except TornJournalError as tail:
            self.torn = _move_tail(self.journal, tail.path, tail.offset)
        return ahead

    def _write_again(self, end: JournalReader, known: tuple[Lsn, int]) -> None:
        """Write what follows the checkpoint in the newest file once more: only there can a failed sync have lost any.

        Args:
            known: the file, by its first LSN, and the place in it, where the checkpoint is.
        """
        first_lsn = end.file_first_lsn
        start = known[1] if known[0] == first_lsn else 0
        if first_lsn and start < end.offset:
            files.write_again(self.journal.file_path(first_lsn), start, end.offset)

    def _check_and_redo(self, ahead: _Ahead, was_clean: bool, newest_ns: int) -> None:
        """Redo into volumes that are as they were left; where nothing is to be redone, they are not looked at."""
        if self.held:
            self._redo_held(self.held, ahead, was_clean, newest_ns)
        elif ahead.intended:
            with HeldVolumes(self.journal) as held:
                self._redo_held(held, ahead, was_clean, newest_ns)
        else:
            self._redo(None, was_clean)

    def _redo_held(self, held: HeldVolumes, ahead: _Ahead, was_clean: bool, newest_ns: int) -> None:
        bound_ns = None if files.exists(self.journal.detached_path) else newest_ns
        lacking = ahead.intended
        held.check_as_left(self.checkpoint, was_clean=was_clean, newest_ns=bound_ns, lacking=lacking)
        without = self.checkpoint.incomplete
        held.check_samples(self.sums, self._in_flight() if ahead.expected else (), without=without, lacking=lacking)
        if self.checkpoint.boot_id == hostinfo.boot_id() and self.journal.page_size <= _UNTORN_BYTES:
            without |= held.reattached(self.checkpoint)
            held.check_pages(self.sums.volumes, self.sums, ahead.expected, without=without, lacking=lacking)
        if not ahead.intended:
            self._redo(None, was_clean)
            return
        store = held.store(self.sums.volumes)
        self._written_ns = newest_ns
        with held.writing():
            self._redo(store, was_clean)
            store.sync()
        self.redone = ahead.intended
        self._redone_records = held.records()

    def _in_flight(self) -> Iterator[Batch]:
        """What was journaled since the checkpoint: a volume may have all of it, some, or none."""
        with JournalReader(self.journal, self.checkpoint.position) as reader:
            while reader.next_header():
                yield reader.batch(payload=False)

    def _redo(self, store: PageWriter | None, was_clean: bool) -> None:
        """Bring the sums up to the end, and the intended frames into `store` if one is given."""
        with JournalReader(self.journal, self.checkpoint.position) as reader:
            while header := reader.next_header():
                is_redone = store is not None and not header.is_captured
                batch = reader.batch(payload=is_redone)
                check_inside(header, batch, self.sums.volumes, self.journal.path)
                if store and is_redone:
                    self._keep_time()
                    write_batch(store, batch)
                self.sums.apply_batch(batch)
        if not was_clean:
            self.sums.rebuild()

    def _keep_time(self) -> None:
        """Before volumes are written, note when: a crash in here must not look like a change from outside."""
        now = clock.now_ns()
        if now - self._written_ns > STALL_NS // 2:
            known = self.checkpoint.volumes.items()
            volumes = {name: replace(record, modified_ns=max(record.modified_ns, now)) for name, record in known}
            checkpoint = replace(self.checkpoint, volumes=volumes)  # the boot id stays: pages may be torn
            self.journal.save_recorder_checkpoint(checkpoint)
            self.checkpoint, self._written_ns = checkpoint, now

    def _make_sums_anew(self, end: JournalReader) -> None:
        """Compute a damaged table of sums anew from the journal, and from a base if the journal was pruned."""
        self.sums.close()
        for name in files.list_directory(self.journal.sums_path):
            files.remove(files.join(self.journal.sums_path, name))
        self.sums = sums_as_of(self.journal, self.journal.sums_path, end.position.lsn)
        if self.sums.state_sum != end.state_sum:
            raise CorruptJournalError(
                f"its operations do not give the state sum at LSN {end.position.lsn}",
                where=self.journal.path,
                remedy="make a new journal; this one's commits can still be replayed",
            )


class _Ahead:
    """What the frames after the checkpoint hold.

    Attributes:
        intended: how many frames the volumes may lack.
        expected: the sums that they give, by page; captured ones too, as the volume may have those.
    """

    def __init__(self, volumes: VolumeSet) -> None:
        self._volumes = volumes
        self.intended = 0
        self.expected: dict[int, set[int]] = {}
        self._zeroed: list[range] = []  # by operations of too many pages to expect each

    def add(self, header: FrameHeader, batch: Batch, path: str) -> None:
        self._volumes = check_inside(header, batch, self._volumes, path)
        if batch.kinds[0] >= Kind.COMMIT:
            return
        self.intended += not header.is_captured
        written, done = unpack_sums(batch.sums), 0  # at once: a third of the time that Batch.runs would need
        for kind, page, count in zip(batch.kinds, batch.pages, batch.counts, strict=True):
            if kind == Kind.WRITE:
                for number in range(page, page + count):
                    self._expect(number, written[done + number - page])
                done += count
            elif kind == Kind.ZERO and count <= _EXPECTED_PAGES_MAX:
                for number in range(page, page + count):
                    self._expect(number, 0)
            elif kind == Kind.ZERO:
                self._expect_zeros(range(page, page + count))

    def _expect(self, page: int, page_sum: int) -> None:
        sums = self.expected.get(page)
        if sums is None:
            sums = self.expected[page] = {0} if any(page in zeroed for zeroed in self._zeroed) else set()
        sums.add(page_sum)

    def _expect_zeros(self, pages: range) -> None:
        self._zeroed.append(pages)
        for page, sums in self.expected.items():
            if page in pages:
                sums.add(0)


def write_batch(store: PageWriter, batch: Batch) -> None:
    """Do a batch's operations to a store, one after another."""
    for kind, page, count, _, data in batch.runs():
        if kind == Kind.WRITE:
            store.write([(page, [data], len(data))])
        elif kind == Kind.ZERO:
            store.zero(page, count)


def require_checkpoint(journal: Journal, take_over: bool = False) -> RecorderCheckpoint:
    try:
        checkpoint = journal.recorder_checkpoint()
    except NotAJournalError:
        if not take_over:
            raise
        checkpoint = _checkpoint_at_end(journal)
    if checkpoint is None:
        raise NotAJournalError(
            "this is a copy: only the primary has what a recorder needs",
            where=journal.path,
            remedy="record where the journal was made; after a loss there, promote a mirror",
        )
    return checkpoint


def _checkpoint_at_end(journal: Journal) -> RecorderCheckpoint:
    """In place of one that is damaged: made from the journal alone, for a caller that accepts the volumes as they are.

    The table of sums is checked against the state sum at that point, and made anew if it has another.
    """
    position, state_sum, time_ns = journal.start, journal.first_state_sum, 0
    for first_lsn in reversed(journal.file_starts()):
        with suppress(TornJournalError), JournalReader(journal, first_lsn=first_lsn) as reader:
            with suppress(TornJournalError):
                while reader.next_header():
                    pass
            position, state_sum, time_ns = reader.position, reader.state_sum, reader.time_ns
            break
    everything = frozenset(volume.name for volume in journal.volumes)
    return RecorderCheckpoint(position, state_sum, time_ns, "", {}, everything)


def _open_sums(journal: Journal, checkpoint: RecorderCheckpoint) -> PageSums:
    sized = [replace(volume, size=_recorded_size(checkpoint, volume)) for volume in journal.volumes]
    try:
        volumes = VolumeSet(sized, journal.page_size)
    except UsageError as error:
        raise NotAJournalError(f"recorder.json: {error.what}", where=journal.path) from None
    if not files.exists(journal.sums_path):
        files.make_directory(journal.sums_path)  # a table that was lost is made anew from the journal
    return PageSums(journal.sums_path, volumes, checkpoint.state_sum, write=True)


def _recorded_size(checkpoint: RecorderCheckpoint, volume: Volume) -> int:
    record = checkpoint.volumes.get(volume.name)
    return record.size if record else volume.size


def _move_tail(journal: Journal, path: str, offset: int) -> str:
    """Copy a torn tail to `torn/` durably, then cut it off; a file without a whole header is removed."""
    name = f"{files.base_name(path)}-{offset}-{clock.now_ns()}"
    saved = files.join(journal.torn_path, name)
    if not files.exists(journal.torn_path):
        files.make_directory(journal.torn_path)
    with files.open_file(path, write=True, follow=False) as source, files.make_file(saved) as copy:
        _copy(source, copy, offset)
        copy.fdatasync()
        files.sync_directory(journal.torn_path)
        source.truncate(offset)
        source.fdatasync()
    if offset == 0:
        files.remove_durably(path)
    return saved


def _copy(source: File, saved: File, offset: int) -> None:
    written = 0
    while data := source.pread(_COPY_BYTES, offset + written):
        saved.pwrite(data, written)
        written += len(data)
