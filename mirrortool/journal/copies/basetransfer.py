"""A base on its way into a copy that lacks what comes before it, and the journal file that holds its commit.

bases/arriving/LSN-SIZE-CHECKSUM.part  the base, as far as it came
bases/arriving/FIRST-LSN.mj            that file, as far as it came

Until both are whole up to the commit, and durable, the copy stays what it was. Then
    1  the base gets its name in bases/
    2  slots that need older files are marked lost, and these files go, oldest first
    3  the new file gets its name in files/
each of them durable before the next. A process that opens the copy after a crash finishes what follows 1.

Rule: a base gets its name only when each page was compared with its sum, all of them with the state sum of the commit,
and the file has that commit. What is damaged is removed, so that it is begun anew.
Bound: one frame of the base in memory. Not here: what arrives (copy.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from mirrortool import clock, files
from mirrortool.errors import (
    CorruptJournalError,
    HostError,
    JournalError,
    LinkError,
    LockedError,
    UnfinishedArrivalError,
)
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.journal import holds, slots
from mirrortool.journal.bases.basefile import BaseFile, check_sums, header_bytes_max
from mirrortool.journal.bases.listing import base_path, bases_path, lock_bases
from mirrortool.journal.codec import FrameError, FrameHeader
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.unfinished import PART, Unfinished, arriving_path, check_finished, due_file
from mirrortool.jsonfile import INTEGER_MAX, Fields
from mirrortool.lsn import Lsn
from mirrortool.operation import Batch
from mirrortool.volume import VolumeSet

_STEP_BYTES = 64 << 20
_SWITCH_SECONDS = 30.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Announced:
    """A base that is to come.

    Attributes:
        size: bytes of its file.
        checksum: of the file, as its end record has it; with the others it tells this base from any other.
        file_first_lsn: of the journal file that holds its commit, and comes next.
    """

    position: Position
    size: int
    checksum: int
    file_first_lsn: Lsn

    def to_json(self) -> dict[str, object]:
        return {
            "position": self.position.to_json(),
            "size": self.size,
            "checksum": f"{self.checksum:016x}",
            "file": self.file_first_lsn,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Announced:
        position = Position.from_json(fields.object("position"))
        checksum = int.from_bytes(fields.hexadecimal("checksum", 8), "big")
        found = cls(position, fields.integer("size", INTEGER_MAX), checksum, Lsn(fields.integer("file", INTEGER_MAX)))
        if not (0 < found.file_first_lsn <= position.lsn and found.size):
            raise fields.wrong("file")
        return found

    @property
    def part_name(self) -> str:
        """What it is called while it arrives."""
        return f"{self.position.lsn:016x}-{self.size:x}-{self.checksum:016x}{PART}"


class ArrivingBase:
    """A base as far as it came; `close` keeps that for another connection.

    Attributes:
        received: bytes of it that are there; what comes next follows them.
        is_whole: all of it is there, was checked, and is durable.
        has_file: the journal file with its commit has begun to arrive.
    """

    def __init__(self, journal: Journal, announced: Announced, *, anew: bool) -> None:
        """Continue what an earlier connection left of the same base, unless `anew`; what another left is removed."""
        self.announced = announced
        self.is_whole = self.has_file = False
        self._journal = journal
        self._path = files.join(arriving_path(journal.path), announced.part_name)
        files.make_directory(bases_path(journal), exist_ok=True)
        files.make_directory(arriving_path(journal.path), exist_ok=True)
        _clean(journal, keep=None if anew else announced.part_name)
        self._file = files.open_file(self._path, write=True, create=True)
        files.sync_name(self._path)
        self.received = min(self._file.size(), announced.size)
        self._synced = 0
        self._inherited = self.received  # what another connection left; up to _written_again it was written once more
        self._written_again = 0
        self._base: BaseFile | None = None
        self._frames: Iterator[tuple[FrameHeader, Batch]] = iter(())

    def close(self) -> None:
        self._file.close()
        if self._base:
            self._base.close()

    def file_path(self, first_lsn: Lsn) -> str:
        """Where the journal file with its commit is meanwhile."""
        return files.join(arriving_path(self._journal.path), layout.file_name(first_lsn))

    def check(self) -> bool:
        """Check some of what is there, so that no caller waits long; returns whether that was all.

        Raises:
            LinkError, JournalError: it is damaged, or not of this journal's history; it is gone.
        """
        try:
            return self._check()
        except CorruptJournalError as error:
            self._remove()
            raise LinkError(f"the base that arrived was damaged: {error.what}", remedy="ship again") from None
        except JournalError:
            self._remove()
            raise

    def append(self, offset: int, data: memoryview) -> None:
        """Store what follows, and check it as far as whole frames are there.

        Raises:
            NoSpaceError, InputOutputError: nothing was stored, and a later call with the same may succeed.
            LinkError, JournalError: as `check`, or it does not follow.
        """
        if offset != self.received or len(data) > self.announced.size - offset:
            raise LinkError(f"bytes of a base at offset {offset} that do not follow the {self.received} before")
        self._file.pwrite(data, offset)
        self.received += len(data)
        while not self.check():
            pass

    def sync(self) -> None:
        """Make durable what is there.

        Raises:
            HostError: it is not, and is gone, as the kernel may have dropped some of it.
        """
        if self._synced == self.received:
            return
        try:
            self._file.fdatasync()
        except HostError:
            with suppress(HostError):
                self._remove()
            raise
        self._synced = self.received

    def check_meets(self, header: FrameHeader, volumes: VolumeSet) -> VolumeSet:
        """A frame that comes after the base is of the same history; raises FrameError otherwise.

        Returns:
            The volumes after the frame: those of the base after its commit, before it those that were given.
        """
        position = self.announced.position
        if header.first_lsn <= position.lsn <= header.position.lsn and header.position != position:
            raise FrameError(f"the journal has position {header.position} where the base has {position}")
        assert self._base is not None, "no frame arrives before the base is whole"
        return self._base.volumes if header.position == position else volumes

    def lock(self) -> File:
        """No other process works with the bases, or removes journal files, until the returned file is closed.

        Raises:
            LockedError: another process does.
        """
        return lock_bases(self._journal)

    def check_not_held(self) -> None:
        """Raise LockedError if a running process reads what the base takes the place of; nothing has changed then."""
        with slots.locked(self._journal):
            _check_not_held(self._journal, self.announced.file_first_lsn)

    def install(self) -> None:
        """Take the place of the files before; under `lock`, with the file durable up to the commit.

        Raises:
            LockedError: a running process reads what is there; it stays.
        """
        assert self.is_whole and self.has_file
        self.close()
        with slots.locked(self._journal):
            _check_not_held(self._journal, self.announced.file_first_lsn)
            files.sync_directory(arriving_path(self._journal.path))
            files.rename(self._path, base_path(self._journal, self.announced.position.lsn))
            _finish(self._journal, self.announced.file_first_lsn)

    def _check(self) -> bool:
        if self.is_whole:
            return True
        if self._base is None and not self._open():
            return True
        assert self._base is not None
        ends = self._base.checked + _STEP_BYTES
        while self._base.checked < ends:
            if not self._base.has_arrived(self.received):
                return True
            found = next(self._frames, None)
            self._write_again(self.announced.size if found is None else self._base.checked)
            if found is None:
                self.sync()
                self.is_whole = True
                return True
            if not check_sums(found[1], self._journal.page_size):
                raise CorruptJournalError("pages do not have their sums", where=self._path)
        return False

    def _write_again(self, end: int) -> None:
        """Write what an earlier connection left before this offset once more; files.write_again says why.

        In pieces, as it is checked, so that no caller waits long; `sync` follows.
        """
        end = min(end, self._inherited)
        if self._written_again < end:
            files.copy_range(self._file, self._file, self._written_again, end)
            self._written_again = end

    def _open(self) -> bool:
        """Check the header, if it is there."""
        if self.received < min(self.announced.size, header_bytes_max()):
            return False
        position = self.announced.position
        self._base = BaseFile(self._journal, self._path, position.lsn, size=self.announced.size)
        if self._base.header.position != position:
            raise CorruptJournalError(f"it is of position {self._base.header.position}", where=self._path)
        self._frames = self._base.frames()
        return True

    def _remove(self) -> None:
        self.close()
        self.received = self._synced = self.announced.size  # nothing more fits, and nothing is to be synced
        files.remove(self._path)


def finish_base_transfer(journal: Journal) -> None:
    """Finish what a crash interrupted once the base had its name; under the journal's lock.

    Raises:
        LockedError: another process works with the bases, or reads what is to go.
    """
    first_lsn = due_file(journal.path)
    if first_lsn is not None:
        with lock_bases(journal):
            # What named a base, or marked a slot lost, may have been killed before it made that durable.
            files.sync_directories(arriving_path(journal.path), bases_path(journal), slots.slots_path(journal))
            with slots.locked(journal):
                _check_not_held(journal, Lsn(first_lsn))
                _finish(journal, Lsn(first_lsn))


def drop_base_transfer(journal: Journal) -> None:
    """Nothing more arrives here: what came of a base goes; under the journal's lock."""
    _clean(journal, keep=None)


def open_finished(path: str) -> Journal:
    """Open a journal; if it is a copy in which a base is taking the place of older files, once that is finished.

    If its receiver has ended, it is finished here.

    Raises:
        UnfinishedArrivalError: this process cannot write there, or a receiver takes longer than that should.
        NotAJournalError, UnfinishedPromotionError: as Journal.
    """
    ends = clock.monotonic() + _SWITCH_SECONDS
    while True:
        try:
            return Journal(path)
        except UnfinishedArrivalError:
            if not _is_finished(path) and clock.monotonic() > ends:
                raise


def _is_finished(path: str) -> bool:
    """Whether nothing is due any more, as it was finished here; False after a moment if another process is doing it."""
    try:
        journal = Journal(path, finishing=Unfinished.ARRIVAL)
        with journal.lock("receive"):
            finish_base_transfer(journal)
    except LockedError:
        clock.sleep(_POLL_SECONDS)
        return False
    except HostError:
        check_finished(path)
    return True


def _check_not_held(journal: Journal, first_lsn: Lsn) -> None:
    holds.remove_dead(journal)
    holds.check_not_held(journal, first_lsn, "let a base take the place of older files")


def _finish(journal: Journal, first_lsn: Lsn) -> None:
    """Steps 2 and 3. Slots are locked, so that none registers in between for a position that goes."""
    for slot in slots.slots(journal):
        if slot.holds_back and slot.needs_lsn < first_lsn:
            slots.save(journal, slot.losing())
    journal.save_clean_end(None)
    for each in journal.file_starts():
        files.remove_durably(journal.file_path(each))
    here = files.join(arriving_path(journal.path), layout.file_name(first_lsn))
    files.rename(here, journal.file_path(first_lsn))
    _clean(journal, keep=None)


def _clean(journal: Journal, *, keep: str | None) -> None:
    """Remove what is there, journal files first: without a part beside it one would count as due."""
    directory = arriving_path(journal.path)
    names = [name for name in files.list_directory(directory) if name != keep]
    for name in sorted(names, key=lambda name: name.endswith(PART)):
        files.remove_durably(files.join(directory, name))
