"""Reads frames as they lie in their files, many at a time, to pass them on.

Rule: no byte is given out before it is durable, and none of a frame that is not whole and sound: header, body, chain
and epoch are checked, as reader.py does. What the operations say is not looked at.
Bound: as of the reader; a run longer than `bytes_max` is a single frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirrortool.errors import ForkedJournalError, MissingFileError, TornJournalError, UsageError
from mirrortool.journal import format as layout
from mirrortool.journal.codec import FrameError, FrameHeader, check_body, durable_lsn_in
from mirrortool.journal.directory import Journal
from mirrortool.journal.journalfile import JournalFile
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.lsn import Lsn


@dataclass(frozen=True, slots=True)
class Run:
    """Whole frames that follow each other in one file, and before the first of all the file's header.

    Attributes:
        offset: of the first byte, from the start of the file.
        data: good until the reader is used again.
        start: before the first.
        position, time_ns: after the last.
    """

    file_first_lsn: Lsn
    offset: int
    data: memoryview
    start: Position
    position: Position
    time_ns: int


class RunReader(JournalReader):
    """A reader that also gives runs."""

    def next_run(self, bytes_max: int) -> Run | None:
        """Move over the next frames, and one at least; None at the end, which may move later.

        Raises:
            JournalError: as `next_header`; everything before was given out.
        """
        header = self.next_header()
        if header is None:
            return None
        file, start, before = self._file, self._frame_offset, self._before[0]
        assert file is not None
        begin = 0 if start == layout.FILE_HEADER.size else start
        file.raw(begin, self._offset - begin)  # so that what lies after it is read along
        try:
            found = file.frame_in_memory(start)
            if found is None or found[0] != header:  # it may have been read anew just now
                raise FrameError("the file was changed while it was read")
            self._check_body(*found)
        except FrameError as error:
            raise self._step_back(error) from None
        while self._offset - start < bytes_max and self._follow(file):
            pass
        data = file.raw(begin, self._offset - begin)
        return Run(file.first_lsn, begin, data, before, self.position, self.time_ns)

    def _follow(self, file: JournalFile) -> bool:
        """Take in the next frame, if it is in memory and sound; if not, the next call judges it."""
        try:
            found = file.frame_in_memory(self._offset)
            if found is None:
                return False
            header = found[0]
            self._check_continues(header)
            self._check_body(*found)
            self._epochs.check_before_fork(file, header)
        except (FrameError, ForkedJournalError):
            return False
        self._move_past(header)
        return True

    def _check_body(self, header: FrameHeader, body: memoryview) -> None:
        check_body(header, body)
        if header.is_commit:
            self._judge.learn(Lsn(durable_lsn_in(header, body)))


def find_end(journal: Journal) -> Position:
    """Where the journal ends now, or where it is torn; reads the headers of its newest file.

    Raises:
        JournalError: it is damaged before that.
    """
    for first_lsn in reversed(journal.file_starts()):
        position = _end_in_file(journal, first_lsn)
        if position:
            return position
    return journal.start


def _end_in_file(journal: Journal, first_lsn: Lsn) -> Position | None:
    """None if the file is only begun."""
    try:
        reader = JournalReader(journal, first_lsn=first_lsn)
    except TornJournalError:
        return None
    with reader:
        try:
            while reader.next_header():
                pass
        except TornJournalError:
            pass
        return reader.position


def position_at(journal: Journal, lsn: Lsn) -> Position:
    """The position after the frame that ends with this LSN.

    Raises:
        UsageError: none does.
        MissingFileError: the file that would tell is gone.
    """
    first_lsn = journal.file_holding(Lsn(lsn + 1))
    if first_lsn is None:
        if lsn == 0:
            return journal.start
        raise MissingFileError(f"no journal file holds LSN {lsn}", where=journal.path)
    with JournalReader(journal, first_lsn=first_lsn) as reader:
        if reader.read_to(lsn).lsn != lsn:
            raise UsageError(
                f"no frame ends with LSN {lsn}; one ends with {reader.position.lsn}",
                where=journal.path,
                remedy="take the LSN that mirrortool status prints of the copy",
            )
        return reader.position
