"""A copy of a journal that another host records: the same files, byte for byte, as they arrive.

`journal.json`, `copy.json` with an id of its own, `received.json` and `files/`; what makes a directory a primary's
journal, local.json and recorder.json, it does not have. A base takes the place of files that the sender no longer has;
see basetransfer.py.

Rule: a frame is stored only where it belongs, and only if it is sound: its header's and its body's checksums, its
chain, its LSN and its time, and what it says, so that verify passes what was acknowledged. What was there before is
compared, never written again. How the bytes get there is journal/appender.py; after a failed fdatasync nothing is kept
that may not be durable. Rule: the durable mark (durablemark.py) is written at opening, at the end, and every few
seconds meanwhile, so that no acknowledgement and no file waits for a sync of its own for it.

Used by one thread, under the journal's lock.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace

from mirrortool import clock, files, hostinfo
from mirrortool.errors import (
    ForkedJournalError,
    HostError,
    JournalError,
    LinkError,
    MissingFileError,
    OtherJournalError,
    TornJournalError,
    UsageError,
)
from mirrortool.journal import format as layout
from mirrortool.journal.appender import Appender, Remedies
from mirrortool.journal.bounds import check_inside, of_unknown_size
from mirrortool.journal.copies import arrivalchecks
from mirrortool.journal.copies.basetransfer import Announced, ArrivingBase, finish_base_transfer
from mirrortool.journal.copies.directory import check_is_copy, is_primary, load_id, lock_copy
from mirrortool.journal.description import Description, NextScan
from mirrortool.journal.directory import Journal, is_described
from mirrortool.journal.durablemark import DurableMark, load_mark, save_mark
from mirrortool.journal.lineage import check_continues
from mirrortool.journal.position import FrameEnd, Position
from mirrortool.journal.rawframes import Run, RunReader, find_end
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.unfinished import Unfinished
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.volume import VolumeSet

_RUN_BYTES = 4 << 20
_MARK_SECONDS = 3.0
_REMEDIES = Remedies(
    replaced=("it was deleted or replaced while the copy arrived", "ship again"),
    dead=("an earlier failure to make the copy durable cannot be undone", "check the device, then ship again"),
    another="let one receiver use it, and by one path: a mount such as bindfs or sshfs may share no locks",
)


class Copy:
    """A copy, open for what arrives; `close` gives the lock back.

    Attributes:
        journal: None while nothing arrived.
        id: of this copy, 16 bytes; another one has another.
        time_ns: of the newest frame stored.
        durable: after the newest frame that survives a power cut.
    """

    def __init__(self, path: str, group: int | None = None) -> None:
        """Lock what is there, or make the directory; cut off a tail that a crash tore: it comes again.

        Args:
            group: the number of one whose members may read a new copy; by default only the owner may.
        Raises:
            AccessError: the directory is not a copy.
            LockedError: another process appends to it.
            JournalError: it is damaged.
        """
        self.path = path
        self.journal: Journal | None = None
        self.durable = Position(NO_LSN, 0)
        self.time_ns = 0
        self._end = self._standing_at(self.durable)
        self._volumes: VolumeSet | None = None  # with their sizes at the end, as far as these are known
        self._arriving: ArrivingBase | None = None
        self._marked: Position | None = None
        self._marked_at = 0.0
        with ExitStack() as opening:
            self._lock = opening.enter_context(lock_copy(path, group))
            check_is_copy(path)
            self.id = load_id(path)
            if is_described(path):
                journal = Journal(path, finishing=Unfinished.ARRIVAL)
                finish_base_transfer(journal)
                self._open(journal)
            opening.pop_all()

    @property
    def position(self) -> Position:
        """After the newest frame stored."""
        return self._end.position

    @property
    def file_first_lsn(self) -> Lsn:
        """The newest file; 0 before the first."""
        return self._end.file_first_lsn

    @property
    def offset(self) -> int:
        """Where the next frame would begin in that file."""
        return self._end.offset

    @property
    def is_durable(self) -> bool:
        return self.durable == self.position

    def close(self) -> None:
        """Make durable what can be, and give the lock back."""
        try:
            if not self._end.is_dead:
                self.sync()
                self._mark()
        finally:
            self._end.kill()
            if self._arriving:
                self._arriving.close()
            self._lock.close()

    def begin(self, sender: Description) -> None:
        """What is to come is this journal's; the first time, the copy begins with that.

        Raises:
            OtherJournalError: the copy is another journal's.
            ForkedJournalError: its history is not the sender's; the message has both positions.
        """
        if self.journal is None:
            files.make_directory(files.join(self.path, "files"), exist_ok=True)
            journal = Journal(self.path, description=replace(sender, clean_end=None, next_scan=None))
            journal.save(journal.description)
            self._open(journal)
            return
        check_continues(
            sender.history,
            self.journal.history,
            self.position,
            where="what arrives",
            receiver_name=f"the copy {self.path}",
        )
        if (sender.page_size, sender.volumes) != (self.journal.page_size, self.journal.volumes):
            raise OtherJournalError(
                "what arrives has other volumes or pages than the copy", where=self.path, remedy="make a new copy"
            )
        if sender.history != self.journal.history:
            self.sync()
            self.journal.save_history(sender.history, self.journal.clean_end)

    def contains(self, position: Position) -> bool:
        """Whether the copy's history, as far as it is still there, goes through this position."""
        assert self.journal is not None
        with suppress(JournalError):
            JournalReader(self.journal, position).close()
            return True
        return False

    def begin_base(self, announced: Announced, *, anew: bool = False) -> bool:
        """A base is to come, and then the files from the one with its commit on; whether that is of use here.

        It is not where the copy has what comes before these files; then nothing of it is taken.

        Args:
            anew: it comes from its start, whatever an earlier call left.
        """
        self._end.require_alive()
        assert self.journal is not None
        if announced.file_first_lsn <= self.position.next_lsn:
            return False
        if self._arriving:
            raise LinkError("a second base was announced")
        self.sync()
        self._arriving = ArrivingBase(self.journal, announced, anew=anew)
        return True

    def base_place(self) -> int | None:
        """Where a base that was begun continues, once the bytes before were checked; call again while None."""
        assert self._arriving is not None
        return self._arriving.received if self._arriving.check() else None

    def append_base(self, offset: int, data: memoryview) -> None:
        """Store what comes next of a base; nothing, where it is of no use.

        Raises:
            NoSpaceError, InputOutputError: nothing was stored, and a later call with the same may succeed.
            LinkError: the base was damaged on the way, and is begun anew the next time.
            JournalError: it is of another journal, or of another history.
        """
        self._end.require_alive()
        if self._arriving:
            self._arriving.append(offset, data)

    def append(self, file_first_lsn: Lsn, offset: int, data: memoryview) -> None:
        """Store whole frames that lie at this place in their file, its header before the first of them.

        Raises:
            NoSpaceError, InputOutputError: nothing was stored, and a later call with the same may succeed.
            ForkedJournalError: the copy has other bytes there.
            MissingFileError: something between the copy's end and that place did not arrive.
            LinkError: the bytes are not valid there: they were damaged on the way.
        """
        self._end.require_alive()
        if self._arriving and not self._arriving.has_file:
            self._stand_before(self._arriving, file_first_lsn, offset, data)
            self._append_file(data)
            self._arriving.has_file = True
        elif offset == 0 and file_first_lsn == self.position.next_lsn and file_first_lsn != self.file_first_lsn:
            self._append_file(data)
        elif (file_first_lsn, offset) == (self.file_first_lsn, self.offset):
            self._append(data)
        elif (file_first_lsn, offset) < (self.file_first_lsn, self.offset):
            known = len(data) if file_first_lsn < self.file_first_lsn else min(len(data), self.offset - offset)
            self._compare(file_first_lsn, offset, data[:known])
            if known < len(data):
                self._append(data[known:])
        else:
            raise MissingFileError(
                f"what follows position {self.position} did not arrive, but LSN {file_first_lsn} did",
                where=self.path,
                remedy="send it from there on",
            )

    def append_run(self, run: Run) -> None:
        """Store frames that a RunReader gave, as `append` does: of the operations it checks only the checksums."""
        self.append(run.file_first_lsn, run.offset, run.data)

    def sync(self) -> Position:
        """Make everything that was stored durable; returns the position that is.

        Raises:
            HostError: it is not; what may not be durable was cut off, and the copy must be opened again. Or it is, in
                a file that was deleted or replaced.
            LockedError: a base is due to take the place of files, while another process works with the copy's bases,
                or reads those files.
        """
        self._end.require_alive()
        if self._arriving:
            self._arriving.sync()
        if self._end.has_file and not self.is_durable:
            self._end.sync()
            if not self._arriving or self._install(self._arriving):
                self.durable = self.position
        if clock.monotonic() - self._marked_at >= _MARK_SECONDS:
            self._mark()
        return self.durable

    def note_end(self, end: FrameEnd, next_scan: NextScan | None = None) -> bool:
        """The sender stopped cleanly at this position; noted, unless the copy is elsewhere. Durable first."""
        assert self.journal is not None
        self.sync()
        if not self._end.has_file or end.position != self.position:
            return False
        self._mark()
        # The sender may have begun a file there, which comes here only with its first frame.
        self.journal.next_scan = next_scan
        self.journal.save_clean_end(FrameEnd(self.position, self.file_first_lsn, self.offset))
        return True

    def _open(self, journal: Journal) -> None:
        """Stand at the end of what is there, which is durable from now on."""
        self.journal = journal
        ends = (self._find_end(journal, first_lsn) for first_lsn in reversed(journal.file_starts()))
        end = next(filter(None, ends), FrameEnd(journal.start, NO_LSN, 0))
        self._end = self._standing_at(end.position)
        mark = load_mark(self.path)
        if end.file_first_lsn:
            self._write_again(journal, mark, end)
            self._end.stand(journal.file_path(end.file_first_lsn), end.file_first_lsn, end.offset)
        self.durable = self.position
        self._volumes = self._volumes_at_end(journal, mark)
        if mark == DurableMark(self.durable, hostinfo.boot_id(), self._volumes.sizes):
            self._marked = self.durable
        self._mark()

    def _write_again(self, journal: Journal, mark: DurableMark | None, end: FrameEnd) -> None:
        """Write what follows the mark in the newest file once more: only there can a failed sync have lost any."""
        start = 0
        if mark and mark.position == end.position:
            return
        if mark:
            with suppress(JournalError), JournalReader(journal, mark.position, headers_only=True) as reader:
                start = reader.offset if reader.file_first_lsn == end.file_first_lsn else 0
        files.write_again(journal.file_path(end.file_first_lsn), start, end.offset)

    def _volumes_at_end(self, journal: Journal, mark: DurableMark | None) -> VolumeSet:
        """The volumes with their sizes at the end, or larger where these are not known."""
        if not self.position.lsn:
            return journal.volumes
        with suppress(UsageError, JournalError):  # a mark that was damaged, or that a prune went past
            if mark and mark.sizes is not None:
                volumes = journal.volumes.with_sizes(mark.sizes)
                with JournalReader(journal, mark.position) as reader:
                    for header in reader.up_to(self.position.lsn):
                        volumes = check_inside(header, reader.batch(payload=False), volumes, self.path)
                return volumes
        return of_unknown_size(journal.volumes)

    def _find_end(self, journal: Journal, first_lsn: Lsn) -> FrameEnd | None:
        """The end of this file; None if it was only begun, and is gone now."""
        end = None
        try:
            with RunReader(journal, first_lsn=first_lsn) as reader:
                try:
                    while reader.next_run(_RUN_BYTES):
                        pass
                finally:
                    end = FrameEnd(reader.position, reader.file_first_lsn, reader.offset)
                    self.time_ns = reader.time_ns
        except TornJournalError as error:
            _cut(error)
        return end

    def _standing_at(self, position: Position) -> Appender:
        return Appender(self.path, position, _REMEDIES, cuts_unsynced=True)

    def _append_file(self, data: memoryview) -> None:
        """Begin the successor of the newest file with its header and first frames."""
        assert self.journal is not None
        arrivalchecks.check_file_header(self.journal, data, self.position)
        rest = data[layout.FILE_HEADER.size :]
        first_lsn = self.position.next_lsn
        end = self._checked(rest, first_lsn, layout.FILE_HEADER.size)
        self.sync()
        if self._arriving and self._arriving.has_file:
            raise LinkError(f"the file of LSN {first_lsn} arrived before the commit of the base that was announced")
        self._forget_clean_end()
        path = self._path_of(first_lsn)
        self._end.begin(path, first_lsn, data, end[0])
        _, self.time_ns, self._volumes = end

    def _mark(self) -> None:
        """Write the durable mark. Where that fails, as on a full disk, the older one stays, which is true as well."""
        if self.journal is None or self._arriving or self.durable == self._marked:
            return
        assert self._volumes is not None and self.is_durable  # so these are the sizes there
        self._marked_at = clock.monotonic()
        with suppress(HostError):
            save_mark(self.path, self.durable, self._volumes.sizes)
            self._marked = self.durable

    def _append(self, data: memoryview) -> None:
        self._store(data, self._checked(data, self.file_first_lsn, self.offset))

    def _store(self, data: memoryview, end: tuple[Position, int, VolumeSet]) -> None:
        self._forget_clean_end()
        self._end.append([data], end[0])
        _, self.time_ns, self._volumes = end

    def _checked(self, data: memoryview, file_first_lsn: Lsn, offset: int) -> tuple[Position, int, VolumeSet]:
        """Position, time and volumes after the frames, which are whole and sound at this place."""
        assert self.journal is not None and self._volumes is not None
        after = self.position, self.time_ns
        meets = self._arriving.check_meets if self._arriving else None
        return arrivalchecks.check_frames(self.journal, data, file_first_lsn, offset, after, meets, self._volumes)

    def _compare(self, file_first_lsn: Lsn, offset: int, data: memoryview) -> None:
        """What arrives again is what was stored; of a file that was pruned here, nothing is known."""
        path = self._path_of(file_first_lsn)
        if not files.exists(path):
            return
        with files.open_file(path) as file:
            if file.pread(len(data), offset) != data:
                raise ForkedJournalError(
                    f"other bytes arrived for offset {offset} than the copy has there, which ends at {self.position}",
                    where=path,
                    remedy="one of them follows another history",
                )

    def _forget_clean_end(self) -> None:
        """More arrives: where the sender stopped before is the end no more."""
        assert self.journal is not None
        if self._arriving:  # until the base is there, the copy is what it was
            return
        self.journal.save_clean_end(None)

    def _path_of(self, first_lsn: Lsn) -> str:
        assert self.journal is not None
        return self._arriving.file_path(first_lsn) if self._arriving else self.journal.file_path(first_lsn)

    def _stand_before(self, base: ArrivingBase, file_first_lsn: Lsn, offset: int, data: memoryview) -> None:
        """Stand where the file with the base's commit begins, which connects with nothing that is here."""
        if not base.is_whole or (file_first_lsn, offset) != (base.announced.file_first_lsn, 0):
            raise LinkError(f"LSN {file_first_lsn} arrived where a base, or the file with its commit, was announced")
        header = arrivalchecks.file_header(self.path, data)
        if header.first_lsn != file_first_lsn:
            raise arrivalchecks.damaged(self.path, f"a file of LSN {header.first_lsn} in place of {file_first_lsn}")
        self._end.close()
        self._end, self.time_ns = self._standing_at(header.start), header.time_ns
        assert self.journal is not None
        self._volumes = of_unknown_size(self.journal.volumes)

    def _install(self, base: ArrivingBase) -> bool:
        """Let the base and the file with its commit take the place of the files here, once that commit is there."""
        if self.position.lsn < base.announced.position.lsn:
            return False
        assert self.journal is not None
        arrived = self._end
        with base.lock():
            base.check_not_held()
            arrived.kill()  # unless all of it succeeds: the next opening finishes it
            base.install()
            self._arriving = None
            self._marked_at = -_MARK_SECONDS
            installed = self._standing_at(arrived.position)
            installed.stand(self.journal.file_path(self.file_first_lsn), self.file_first_lsn, self.offset)
            self._end = installed
        return True


def check_not_another_primary(path: str, sender: Description) -> None:
    """What is to arrive is not of a primary that the one here replaced, nor of one that replaced it.

    Raises:
        ForkedJournalError: it is; the message has both positions.
    """
    if not is_primary(path) or not files.exists(files.join(path, "journal.json")):
        return
    here = Journal(path)
    if here.uuid == sender.uuid:
        check_continues(
            sender.history,
            here.history,
            find_end(here),
            where="what arrives",
            receiver_name=f"the primary's journal {path}",
        )


def _cut(torn: TornJournalError) -> None:
    """Remove a tail that a crash tore; of a file that was only begun, all of it."""
    if torn.offset < layout.FILE_HEADER.size:
        files.remove_durably(torn.path)
        return
    with files.open_file(torn.path, write=True, follow=False) as file:
        file.truncate(torn.offset)
        file.fdatasync()
