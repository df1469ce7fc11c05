"""Reads the frames of a journal in order, also while it is recorded, pruned, copied or promoted.

Rule: undecodable bytes are a *torn tail* only where a crash can explain them; otherwise they are damage (judgement.py).
They are looked at once more before they are called damage, as a recorder may be writing them.
Bound: one frame, and at least 4 MiB, in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from mirrortool import files
from mirrortool.errors import (
    CorruptJournalError,
    ForkedJournalError,
    HostError,
    JournalError,
    MissingFileError,
    PrunedJournalError,
    TornJournalError,
)
from mirrortool.journal import format as layout
from mirrortool.journal.codec import (
    FileHeader,
    FrameError,
    FrameHeader,
)
from mirrortool.journal.directory import Journal
from mirrortool.journal.epochs import EpochWatch
from mirrortool.journal.journalfile import COPY_AGAIN, JournalFile, corrupt
from mirrortool.journal.judgement import Judge, comes_again
from mirrortool.journal.position import Position
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import Batch


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame and where it is."""

    header: FrameHeader
    batch: Batch
    file_first_lsn: Lsn
    offset: int


@contextlib.contextmanager
def up_to_what_is_appended(journal: Journal) -> Iterator[None]:
    """What a recorder appends meanwhile is not a torn tail; it only ends what there is to read."""
    try:
        yield
    except TornJournalError:
        if not journal.is_in_use():
            raise


class JournalReader:
    """Frames in order, from a position on.

    `next_header` moves to the next frame, `batch` decodes it. After an error the same call tries again with what the
    file holds by then: so a recorder may append, be killed, cut its torn tail and continue, all while it is read.
    Used by one thread at a time.

    Attributes:
        position, time_ns, state_sum: after the frame that was read last.
        file_time_ns: of the first frame in the file; None while none was read.
        is_in_current_epoch: whether the file in which it stands is of the journal's epoch, not of one before.
        on_epoch: called, in the thread that reads, when the journal was promoted meanwhile and continues here, before
            a frame of the new epoch is given out. The history of the journal has the epoch by then.
    """

    def __init__(
        self,
        journal: Journal,
        start: Position | None = None,
        *,
        first_lsn: Lsn | None = None,
        headers_only: bool = False,
    ) -> None:
        """Stand after `start`, by default before the oldest frame, or at the start of the file with `first_lsn`.

        Args:
            headers_only: read no payload, and make nothing durable: no caller may act on what is read so.
        Raises:
            ForkedJournalError: the journal does not contain that position.
            PrunedJournalError: it begins later: what would come next was removed on purpose.
            MissingFileError: the file that would hold the next frame is gone.
        """
        self.journal = journal
        self._headers_only = headers_only
        self._judge = Judge(journal)
        self._file: JournalFile | None = None
        self._offset = 0
        self._header: FrameHeader | None = None
        self._frame_offset = 0
        self.time_ns = 0
        self.state_sum = journal.first_state_sum
        self.position = journal.start
        self._before = self.position, self.time_ns, self.state_sum
        self.file_time_ns: int | None = None
        self._epochs = EpochWatch(journal)
        self.on_epoch: Callable[[], None] | None = None
        try:
            if first_lsn is not None:
                self._open(first_lsn)
            elif start is None:
                self._open_oldest()
            else:
                self._seek(start)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    @property
    def file_first_lsn(self) -> Lsn:
        """The file in which the reader stands; 0 before the first one."""
        return self._file.first_lsn if self._file else NO_LSN

    @property
    def offset(self) -> int:
        """Where the next frame would begin in that file."""
        return self._offset

    @property
    def is_in_current_epoch(self) -> bool:
        return self._epochs.end is None

    def is_in_place(self) -> bool:
        """Whether it reads what has the name of a journal file now; if not, it may wait for nothing."""
        return self._file is None or self._file.is_in_place()

    def next_header(self) -> FrameHeader | None:
        """Move to the next frame; None at the end, which may move later.

        Raises:
            TornJournalError: the journal ends in undecodable bytes that were never durable.
            CorruptJournalError, MissingFileError, OtherJournalError: damage.
        """
        if not self._enter_file():
            return None
        file = self._file
        assert file is not None
        try:
            header = file.frame_header(self._offset)
            self._check_continues(header)
        except FrameError as error:
            failure = self._look_again(file, self._offset, error)
            if failure is None:
                return self.next_header()
            raise failure from None
        self._epochs.check_before_fork(file, header)
        self._move_past(header)
        return header

    def skip_past(self, offset: int) -> None:
        """Move over the frame that begins at an offset of the file, and over all before it, unseen; after opening.

        Raises:
            FrameError: no frame begins there.
        """
        assert self._file is not None
        header = self._file.frame_header(offset)
        self._offset = offset
        self._move_past(header)

    def up_to(self, lsn: Lsn) -> Iterator[FrameHeader]:
        """Move to the next frame again and again, until an LSN is reached or the journal ends; gives each header.

        Raises:
            JournalError: as `next_header`.
        """
        while self.position.lsn < lsn and (header := self.next_header()):
            yield header

    def read_to(self, lsn: Lsn) -> Position:
        """Move over the frames until an LSN is reached or the journal ends; returns the position then.

        Raises:
            JournalError: as `next_header`.
        """
        for _ in self.up_to(lsn):
            pass
        return self.position

    def batch(self, *, payload: bool = True) -> Batch:
        """The operations of the frame that `next_header` moved to, with the pages written unless `payload` is false.

        Raises:
            TornJournalError, CorruptJournalError: as `next_header`; the reader stands before the frame again.
        """
        file, header = self._file, self._header
        assert file is not None and header is not None
        try:
            batch = file.batch(self._frame_offset, header, payload=payload)
        except FrameError as error:
            raise self._step_back(error) from None
        if batch.is_commit:
            self._judge.learn(Lsn(batch.counts[-1]))
        return batch

    def next_frame(self) -> Frame | None:
        """Move to the next frame and decode it."""
        header = self.next_header()
        if header is None:
            return None
        batch = self.batch()
        return Frame(header, batch, self.file_first_lsn, self._frame_offset)

    def _move_past(self, header: FrameHeader) -> None:
        """Stand after the frame at the offset."""
        self._header, self._frame_offset = header, self._offset
        self._before = self.position, self.time_ns, self.state_sum
        if self.file_time_ns is None:
            self.file_time_ns = header.time_ns
        self._offset += layout.FRAME_HEADER.size + header.body_bytes
        self._stand_at(header.position, header.time_ns, header.state_sum)

    def _step_back(self, error: FrameError) -> JournalError:
        """Stand again before the frame that has a body which cannot be decoded; returns what that means."""
        file, header = self._file, self._header
        assert file is not None and header is not None
        self._offset = self._frame_offset
        self._stand_at(*self._before)
        failure = self._look_again(file, self._frame_offset, error)
        return failure or self._judge.torn(file, self._frame_offset, header.first_lsn, str(error))

    def _open_oldest(self) -> None:
        while (starts := self.journal.file_starts()) and starts[0] != 1:
            try:
                self._open(starts[0])
                return
            except PrunedJournalError:  # just now: there is another oldest one
                continue

    def _seek(self, start: Position) -> None:
        if start.lsn:
            self._judge.hold(start.lsn)
            self._open_before(start)
        found = self.read_to(start.lsn)
        if found.lsn < start.lsn and comes_again(self.journal, start.lsn):
            raise self._judge.cut_off(self._file.path if self._file else self.journal.path, self._offset, start.lsn)
        if found != start:
            raise ForkedJournalError(
                f"does not contain position {start}; it has {found} there",
                where=self.journal.path,
                remedy="this mirror or slot follows another history",
            )

    def _open_before(self, start: Position) -> None:
        """Open the file that holds the frame after `start`; while that one is only begun, the file before."""
        first_lsn = self.journal.file_holding(start.next_lsn)
        if first_lsn is None:
            raise self._judge.missing(start.next_lsn)
        try:
            self._open(first_lsn)
        except TornJournalError:
            before = self.journal.file_holding(Lsn(first_lsn - 1))
            if before is None:
                raise
            self._open(before)

    def _enter_file(self) -> bool:
        """Have a file open in which a frame may begin at the offset; False at the end of the journal."""
        if self._file and self._offset < self._file.size:
            return True
        if self._epochs.has_news():
            self._is_promoted()
        # Listed before the size is taken: a file was finished by then if the list has its successor.
        starts = self.journal.file_starts()
        if self._file:
            self._file = self._follow_name(self._file)
            self._file.refresh()
            if self._offset < self._file.size:
                return True
            if self._offset > self._file.size:
                if self._is_promoted():
                    return False
                raise self._was_cut(self._file)
        self._check_no_overlap(starts)
        following = self.position.next_lsn
        is_last = not any(start > following for start in starts)
        if following in starts and following != self.file_first_lsn:
            return self._enter_successor(following, is_last)
        self._check_end(is_last)
        return False

    def _was_cut(self, file: JournalFile) -> JournalError:
        """The error for a file that is shorter than what was read of it."""
        lsn = self.position.lsn
        if comes_again(self.journal, lsn):
            return self._judge.cut_off(file.path, file.size, lsn)
        return corrupt(file.path, file.size, lsn, f"the file ends here, but was read up to offset {self._offset}")

    def _follow_name(self, file: JournalFile) -> JournalFile:
        """The file that now has the name: copying a journal may replace it by a longer one.

        Also a recorder that could not finish beginning a file begins it anew. One that is gone is read to its end.
        """
        if file.is_in_place():
            return file
        try:
            other = JournalFile(self.journal, file.first_lsn, headers_only=self._headers_only)
        except HostError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return file
            raise
        try:
            other.file_header()
        except BaseException as error:
            failure = self._judge.file_header(other, error) if isinstance(error, FrameError) else error
            other.close()
            raise failure from None
        file.close()
        return other

    def _enter_successor(self, first_lsn: Lsn, is_last: bool) -> bool:
        facts = files.find_facts(self.journal.file_path(first_lsn))
        is_only_begun = facts is None or facts.size < layout.FILE_HEADER.size
        if is_only_begun and is_last and not self._judge.is_noted(first_lsn):
            return False
        try:
            self._open(first_lsn)
        except MissingFileError:
            if self._is_promoted():
                return False
            raise
        return self._enter_file()

    def _open(self, first_lsn: Lsn) -> None:
        try:
            file = JournalFile(self.journal, first_lsn, headers_only=self._headers_only)
        except HostError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # since it was listed
                raise self._judge.missing(first_lsn) from None
            raise
        try:
            header = file.file_header()
            end = self._end_of_epoch(file, header)
            if self.position.lsn + 1 == first_lsn and self.position != header.start:
                what = f"does not continue the file before it, which ends at {self.position}"
                raise CorruptJournalError(what, where=file.path, remedy=COPY_AGAIN)
        except BaseException as error:
            failure = self._judge.file_header(file, error) if isinstance(error, FrameError) else error
            file.close()
            raise failure from None
        self.close()
        self._file, self._offset, self._header = file, layout.FILE_HEADER.size, None
        self.file_time_ns = None
        self._epochs.end = end
        self._stand_at(header.start, header.time_ns, header.state_sum)

    def _end_of_epoch(self, file: JournalFile, header: FileHeader) -> Position | None:
        """Where the epoch of a file ends, as EpochWatch.end_of; tells the reader's owner if it is a new one."""
        epoch = self._epochs.find(header)
        if epoch is None and self._is_promoted():
            epoch = self._epochs.find(header)
        if epoch is not None and self._epochs.begins(epoch) and self.on_epoch:
            self.on_epoch()
        return self._epochs.end_of(epoch, header, file.path)

    def _is_promoted(self) -> bool:
        """Whether a promotion, complete or running, explains that the files are not as expected.

        So does a base that is taking the place of files in a copy. Raises as EpochWatch.look.
        """
        found = self._epochs.look(self.position)
        if found:  # what was known to be durable after its start was dropped
            self._judge.forget_after(self.position.lsn)
        return found is not False

    def _stand_at(self, position: Position, time_ns: int, state_sum: int) -> None:
        self.position, self.time_ns, self.state_sum = position, time_ns, state_sum

    def _check_continues(self, header: FrameHeader) -> None:
        if header.first_lsn != self.position.lsn + 1 or header.chain != self.position.chain:
            raise FrameError("the frame does not continue the one before")
        if header.time_ns < self.time_ns:
            raise FrameError("the frame is older than the one before")

    def _check_end(self, is_last: bool) -> None:
        """At the end of a file without a successor: nothing that was durable may be missing."""
        failure = self._judge.end(self._file, self._offset, self.position.lsn, is_last=is_last)
        if failure and not self._is_promoted():
            raise failure

    def _check_no_overlap(self, starts: Sequence[Lsn]) -> None:
        """At the end of a file: no other begins with an LSN that this one has.

        Args:
            starts: of the files, listed before this one's size was taken.
        """
        file, lsn = self._file, self.position.lsn
        if file is None:
            return
        for start in starts:
            if file.first_lsn < start <= lsn and self._has_frames(start) and not self._is_promoted():
                what = f"it goes beyond LSN {start}, with which another file begins"
                raise corrupt(file.path, self._offset, lsn, what)

    def _has_frames(self, first_lsn: Lsn) -> bool:
        """Whether a file is more than begun, which a crash may leave beside one that continues."""
        facts = files.find_facts(self.journal.file_path(first_lsn))
        return facts is not None and facts.size > layout.FILE_HEADER.size

    def _look_again(self, file: JournalFile, offset: int, error: FrameError) -> JournalError | None:
        """What an undecodable frame means; None if it is whole by now.

        It is looked at again before it is called damage: while it was judged, its recorder may have finished it, or
        have been killed, and another may have cut it off and continued from there.
        """
        lsn = self._lsn_at(offset)
        failure = self._judge.frame(file, offset, Lsn(lsn), error)
        if isinstance(failure, TornJournalError):
            file.forget()
            return failure
        file.refresh()
        try:
            header = file.frame_header(offset)
            self._check_continues(header)
            file.batch(offset, header)
        except FrameError as again:
            failure = self._judge.frame(file, offset, Lsn(lsn), again)
            file.forget()
            if isinstance(failure, CorruptJournalError) and self._is_promoted():  # cut here, and there is an end soon
                return self._judge.torn(file, offset, Lsn(lsn), str(again))
            return failure
        return None

    def _lsn_at(self, offset: int) -> int:
        is_current = self._header is not None and offset == self._frame_offset
        return self._header.first_lsn if is_current and self._header else self.position.next_lsn
