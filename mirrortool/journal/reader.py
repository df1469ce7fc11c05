"""Reads the frames of a journal in order, and tells a torn tail from damage.

Rule: nobody acts on a journal byte before it is durable. So a file's size is taken first, then the file is made durable
through our own descriptor, and only what lies below that size is read.

Rule: undecodable bytes are a *torn tail* only where a crash can explain them; otherwise they are damage:

    another journal file follows                                    damage: a file is durable before its successor is
    they begin before the end that a clean stop noted               damage
    they begin with an LSN that is known to have been durable       damage: by a COMMIT, wherever it stands, or by the
                                                                    recorder's checkpoint
    the kernel that wrote them still runs                           torn if the file ends inside the frame, else damage:
                                                                    only power loss loses bytes from the middle
    otherwise                                                       torn

Bound: one frame, and at least 4 MiB, in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mirrortool import files
from mirrortool.errors import (
    CorruptJournalError,
    ForkedJournalError,
    JournalError,
    MissingFileError,
    OtherJournalError,
    TornJournalError,
)
from mirrortool.journal import format as layout
from mirrortool.journal.codec import (
    FileHeader,
    FrameError,
    FrameHeader,
    ShortFrameError,
    decode_body,
    decode_file_header,
    decode_frame_header,
)
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.operation import Batch

_READ_BYTES = 4 << 20
_COPY_AGAIN = "copy it again from the primary or a backup"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame and where it is."""

    header: FrameHeader
    batch: Batch
    file_first_lsn: int
    offset: int


class JournalFile:
    """One journal file, open for reading."""

    def __init__(self, journal: Journal, first_lsn: int) -> None:
        """Open it and check its header.

        Raises:
            ShortFrameError, FrameError: the header cannot be decoded.
            OtherJournalError: it belongs to another journal.
        """
        self.first_lsn = first_lsn
        self.path = journal.file_path(first_lsn)
        self._uuid, self._page_size = journal.uuid, journal.page_size
        self._buffer, self._buffer_at = memoryview(b""), 0
        self._file = files.open_file(self.path)
        try:
            self._file.expect_sequential()
            self.refresh()
            self.header = self._checked(decode_file_header(self._file.pread(layout.FILE_HEADER.size, 0)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def refresh(self) -> None:
        """Take in what was appended, as durable from now on."""
        self.size = self._file.size()
        self._file.fdatasync()
        self._buffer = memoryview(b"")

    def frame_header(self, offset: int) -> FrameHeader:
        """The frame header at `offset`.

        Raises:
            ShortFrameError: the file ends inside the frame, its body included.
            FrameError: there is no frame.
        """
        seed = layout.frame_seed(self._uuid, self.first_lsn, offset)
        header = decode_frame_header(self._bytes(offset, layout.FRAME_HEADER.size), seed, self._page_size)
        if offset + layout.FRAME_HEADER.size + header.body_bytes > self.size:
            raise ShortFrameError("the file ends inside a frame")
        return header

    def batch(self, offset: int, header: FrameHeader, *, payload: bool = True) -> Batch:
        """The operations of the frame at `offset`; see codec.decode_body."""
        body = self._bytes(offset + layout.FRAME_HEADER.size, header.body_bytes)
        if len(body) < header.body_bytes:
            raise ShortFrameError("the file was cut while it was read")
        return decode_body(header, body, self._page_size, payload=payload)

    def find_magic(self, offset: int) -> Iterator[int]:
        """Offsets from `offset` on at which a frame might begin."""
        window = max(len(layout.FRAME_MAGIC), _READ_BYTES)
        while offset < self.size:
            data = self._file.pread(window, offset)
            found = data.find(layout.FRAME_MAGIC)
            while found >= 0:
                yield offset + found
                found = data.find(layout.FRAME_MAGIC, found + 1)
            offset += window - len(layout.FRAME_MAGIC) + 1

    def _bytes(self, offset: int, length: int) -> memoryview:
        start = offset - self._buffer_at
        if start < 0 or start + length > len(self._buffer):
            wanted = min(max(length, _READ_BYTES), max(0, self.size - offset))
            self._buffer, self._buffer_at, start = memoryview(self._file.pread(wanted, offset)), offset, 0
        return self._buffer[start : start + length]

    def _checked(self, header: FileHeader) -> FileHeader:
        if header.uuid != self._uuid:
            raise OtherJournalError("this file belongs to another journal", where=self.path, remedy="take it away")
        if header.first_lsn != self.first_lsn or header.page_size != self._page_size:
            raise FrameError("the file header does not fit the file's name or journal.json")
        return header


class JournalReader:
    """Frames in order, from a position on.

    `next_header` moves to the next frame, `batch` decodes it. Used by one thread at a time.
    """

    def __init__(self, journal: Journal, start: Position | None = None, *, first_lsn: int | None = None) -> None:
        """Stand after `start`, by default before the oldest frame, or at the start of the file with `first_lsn`.

        Raises:
            ForkedJournalError: the journal does not contain that position.
            MissingFileError: the file that would hold the next frame is gone.
        """
        self.journal = journal
        self.durable_lsn = _durable_without_reading(journal)
        self._file: JournalFile | None = None
        self._offset = 0
        self._header: FrameHeader | None = None
        self._frame_offset = 0
        self.time_ns = 0
        self.state_sum = journal.first_state_sum
        self.position = journal.start
        self._before = self.position, self.time_ns, self.state_sum
        if first_lsn is not None:
            self._open(first_lsn)
        elif start is None:
            self._open_oldest()
        elif start.lsn:
            self._seek(start)
        elif start != journal.start:
            raise ForkedJournalError(f"does not contain position {start}", where=journal.path)

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    @property
    def file_first_lsn(self) -> int:
        """The file in which the reader stands; 0 before the first one."""
        return self._file.first_lsn if self._file else 0

    @property
    def offset(self) -> int:
        """Where the next frame would begin in that file."""
        return self._offset

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
            raise self._judge(self._offset, error) from None
        self._header, self._frame_offset = header, self._offset
        self._before = self.position, self.time_ns, self.state_sum
        self._offset += layout.FRAME_HEADER.size + header.body_bytes
        self._stand_at(header.position, header.time_ns, header.state_sum)
        return header

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
            self._offset = self._frame_offset
            self._stand_at(*self._before)
            raise self._judge(self._frame_offset, error) from None
        if batch.is_commit:
            self.durable_lsn = max(self.durable_lsn, batch.counts[-1])
        return batch

    def next_frame(self) -> Frame | None:
        """Move to the next frame and decode it."""
        header = self.next_header()
        if header is None:
            return None
        batch = self.batch()
        return Frame(header, batch, self.file_first_lsn, self._frame_offset)

    def _open_oldest(self) -> None:
        starts = self.journal.file_starts()
        if starts and starts[0] != 1:
            self._open(starts[0])

    def _seek(self, start: Position) -> None:
        first_lsn = self.journal.file_holding(start.lsn + 1)
        if first_lsn is None:
            raise MissingFileError(f"no journal file holds LSN {start.lsn + 1}", where=self.journal.path)
        try:
            self._open(first_lsn)
            while self.position.lsn < start.lsn and self.next_header():
                pass
        except TornJournalError:
            pass
        if self.position != start:
            raise ForkedJournalError(
                f"does not contain position {start}; it has {self.position} there",
                where=self.journal.path,
                remedy="this mirror or slot follows another history",
            )

    def _enter_file(self) -> bool:
        """Have a file open in which a frame may begin at the offset; False at the end of the journal."""
        if self._file and self._offset < self._file.size:
            return True
        if self._file:
            self._file.refresh()
            if self._offset < self._file.size:
                return True
            if self._offset > self._file.size:
                raise self._judge(self._offset, ShortFrameError("the file became shorter"))
        following = self.position.lsn + 1
        if following == self.file_first_lsn:
            return False
        return self._enter_successor(following)

    def _enter_successor(self, first_lsn: int) -> bool:
        path = self.journal.file_path(first_lsn)
        later = [start for start in self.journal.file_starts() if start > first_lsn]
        facts = files.find_facts(path)
        if facts is None:
            if later or self._is_missing(first_lsn):
                raise MissingFileError(
                    f"the journal file with LSN {first_lsn} is missing", where=path, remedy=_COPY_AGAIN
                )
            self._check_end()
            return False
        if facts.size < layout.FILE_HEADER.size and not later and not self._is_known_durable(first_lsn):
            return False
        self._open(first_lsn)
        return True

    def _open(self, first_lsn: int) -> None:
        try:
            file = JournalFile(self.journal, first_lsn)
        except FrameError as error:
            raise self._judge_file(first_lsn, error) from None
        header = file.header
        if self.position.lsn + 1 == first_lsn and self.position != header.start:
            file.close()
            raise CorruptJournalError(
                f"does not continue the file before it, which ends at {self.position}", where=file.path
            )
        self.close()
        self._file, self._offset, self._header = file, layout.FILE_HEADER.size, None
        self._stand_at(header.start, header.time_ns, header.state_sum)

    def _stand_at(self, position: Position, time_ns: int, state_sum: int) -> None:
        self.position, self.time_ns, self.state_sum = position, time_ns, state_sum

    def _check_continues(self, header: FrameHeader) -> None:
        if header.first_lsn != self.position.lsn + 1 or header.chain != self.position.chain:
            raise FrameError("the frame does not continue the one before")
        if header.time_ns < self.time_ns:
            raise FrameError("the frame is older than the one before")

    def _is_missing(self, first_lsn: int) -> bool:
        """Whether frames from `first_lsn` on, in a file of their own, are known to have been durable."""
        end = self.journal.clean_end
        if end and end.file_first_lsn >= first_lsn:
            return True
        return self._file is None and self._is_known_durable(first_lsn)

    def _check_end(self) -> None:
        """At the end of the last file: nothing that was durable may be missing."""
        if self._is_known_durable(self.position.lsn + 1):
            raise CorruptJournalError(
                f"ends at LSN {self.position.lsn}, but LSN {self.durable_lsn} was durable",
                where=self._file.path if self._file else self.journal.files_path,
                remedy=_COPY_AGAIN,
            )

    def _is_known_durable(self, lsn: int) -> bool:
        return lsn <= self.durable_lsn

    def _judge(self, offset: int, error: FrameError) -> JournalError:
        """Torn tail or damage: the table above."""
        file = self._file
        assert file is not None
        lsn = self._lsn_at(offset)
        has_successor = any(start > file.first_lsn for start in self.journal.file_starts())
        if not has_successor and not self._is_known_durable(lsn):
            later_durable = _durable_after(file, offset)
            if lsn > later_durable and (isinstance(error, ShortFrameError) or self._may_have_lost_power()):
                return _torn(file.path, offset, lsn, str(error), file.size - offset)
        return _corrupt(file.path, offset, lsn, str(error))

    def _judge_file(self, first_lsn: int, error: FrameError) -> JournalError:
        """The same for a file whose header cannot be decoded."""
        path = self.journal.file_path(first_lsn)
        is_last = self.journal.file_starts()[-1] == first_lsn
        if is_last and not self._is_known_durable(first_lsn):
            facts = files.find_facts(path)
            if isinstance(error, ShortFrameError) or self._may_have_lost_power():
                return _torn(path, 0, first_lsn, str(error), facts.size if facts else 0)
        return _corrupt(path, 0, first_lsn, str(error))

    def _lsn_at(self, offset: int) -> int:
        is_current = self._header is not None and offset == self._frame_offset
        return self._header.first_lsn if is_current and self._header else self.position.lsn + 1

    def _may_have_lost_power(self) -> bool:
        """Whether the kernel that wrote the last frames is gone; not known on another host, so then too."""
        checkpoint = self.journal.recorder_checkpoint()
        return checkpoint is None or not checkpoint.boot_id or checkpoint.boot_id != files.boot_id()


def _durable_without_reading(journal: Journal) -> int:
    """The newest LSN that was durable as far as the small files know."""
    known = 0
    if journal.clean_end:
        known = journal.clean_end.position.lsn
    checkpoint = journal.recorder_checkpoint()
    if checkpoint and checkpoint.position.lsn > known:
        known = checkpoint.position.lsn
    return known


def _durable_after(file: JournalFile, offset: int) -> int:
    """The newest LSN that a COMMIT after `offset` names as durable; 0 if there is none."""
    durable = 0
    for candidate in file.find_magic(offset + 1):
        try:
            header = file.frame_header(candidate)
            if header.is_commit:
                durable = max(durable, file.batch(candidate, header).counts[-1])
        except FrameError:
            continue
    return durable


def _torn(path: str, offset: int, lsn: int, why: str, length: int) -> TornJournalError:
    return TornJournalError(
        f"torn tail of {length} bytes at offset {offset} (LSN {lsn}): {why}",
        where=path,
        remedy="mirrortool record on the primary moves it away",
        offset=offset,
    )


def _corrupt(path: str, offset: int, lsn: int, why: str) -> CorruptJournalError:
    return CorruptJournalError(
        f"damaged at offset {offset} (LSN {lsn}): {why}",
        where=path,
        remedy=_COPY_AGAIN,
    )
