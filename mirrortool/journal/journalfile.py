"""One journal file, open for reading: its header, its frames, and the bytes of frames as they are.

Rule: no process acts on a journal byte before it is durable. So a file's size is read first, then the file is made
durable through our own descriptor, and only what lies below that size is read.
Bound: one frame, and at least 4 MiB, in memory.

Not here: what follows what, and what undecodable bytes mean (judgement.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from mirrortool import files
from mirrortool.errors import USE_A_LATER_ONE, CorruptJournalError, NewerJournalError, OtherJournalError
from mirrortool.journal import format as layout
from mirrortool.journal.codec import (
    FileHeader,
    FrameError,
    FrameHeader,
    NewerFrameError,
    ShortFrameError,
    decode_body,
    decode_file_header,
    decode_frame_header,
)
from mirrortool.journal.directory import Journal
from mirrortool.lsn import Lsn
from mirrortool.operation import Batch

_READ_BYTES = 4 << 20
_HEADER_READ_BYTES = 4096
_TAIL_BYTES = 64 << 10
_TAIL_TRIES = 1000
"""Places that only look like frames were put there to cost time."""
COPY_AGAIN = "take the file of this name from a copy, the primary or a backup"


class JournalFile:
    """One journal file, open for reading."""

    def __init__(self, journal: Journal, first_lsn: Lsn, *, headers_only: bool = False) -> None:
        """Open it; what is in it now is durable from now on, unless only headers are wanted."""
        self.first_lsn = first_lsn
        self._headers_only = headers_only
        self._read_bytes = _HEADER_READ_BYTES if headers_only else _READ_BYTES
        self.path = journal.file_path(first_lsn)
        self._uuid, self._page_size = journal.uuid, journal.page_size
        self._buffer, self._buffer_at, self._buffered = memoryview(b""), 0, 0
        self._file = files.open_file(self.path)
        try:
            if not headers_only:
                self._file.expect_sequential()
            self.refresh()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def refresh(self) -> None:
        """Take in what was appended, as durable from now on."""
        self.size = self._file.size()
        if not self._headers_only:
            self._file.fdatasync()
        self._buffered = 0

    def forget(self) -> None:
        """Drop what is known of its content: what is torn may be written again."""
        self.size = 0
        self._buffered = 0

    def is_in_place(self) -> bool:
        """Whether the file still has its name: copying a journal may put a longer one in its place."""
        facts = files.find_facts(self.path)
        return facts is not None and facts.identity == self._file.facts().identity

    def file_header(self) -> FileHeader:
        """The header of the file.

        Raises:
            ShortFrameError, FrameError: it cannot be decoded.
            OtherJournalError: the file belongs to another journal.
            CorruptJournalError: it is another file of this journal.
        """
        header = decode_file_header(self._file.pread(layout.FILE_HEADER.size, 0))
        if header.uuid != self._uuid:
            raise OtherJournalError("this file belongs to another journal", where=self.path, remedy="take it away")
        if header.first_lsn != self.first_lsn or header.page_size != self._page_size:
            raise corrupt(self.path, 0, self.first_lsn, "the header does not fit the file's name or journal.json")
        return header

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

    def raw(self, offset: int, length: int) -> memoryview:
        """Bytes as they are, fewer at the end of the file; good until the next call of any method that reads."""
        return self._bytes(offset, length)

    def frame_in_memory(self, offset: int) -> tuple[FrameHeader, memoryview] | None:
        """Header and body, of which nothing was checked, of the frame at `offset`; None if not all of it was read last.

        Raises:
            FrameError: there is no frame.
        """
        start = offset - self._buffer_at
        body_at = start + layout.FRAME_HEADER.size
        if start < 0 or body_at > self._buffered:
            return None
        seed = layout.frame_seed(self._uuid, self.first_lsn, offset)
        header = decode_frame_header(self._buffer[start:body_at], seed, self._page_size)
        end = body_at + header.body_bytes
        return (header, self._buffer[body_at:end]) if end <= self._buffered else None

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

    def last_frame(self) -> FrameHeader | None:
        """The header of the frame with which the file ends, looked for from the end; None if none is found there.

        What lies before is not read. No caller may act on it, because the frame's body is not checked.
        """
        end, window, tries = self.size, _TAIL_BYTES, _TAIL_TRIES
        while end > layout.FILE_HEADER.size and tries > 0:
            start = max(layout.FILE_HEADER.size, end - window)
            data = self._file.pread(end - start + len(layout.FRAME_MAGIC) - 1, start)
            found = data.rfind(layout.FRAME_MAGIC)
            while found >= 0 and tries > 0:
                header = self._frame_to_the_end(start + found)
                if header:
                    return header
                tries -= 1
                found = data.rfind(layout.FRAME_MAGIC, 0, found + len(layout.FRAME_MAGIC) - 1)
            end, window = start, min(8 * window, _READ_BYTES)
        return None

    def _frame_to_the_end(self, offset: int) -> FrameHeader | None:
        try:
            header = self.frame_header(offset)
        except FrameError:
            return None
        return header if offset + layout.FRAME_HEADER.size + header.body_bytes == self.size else None

    def durable_after(self, offset: int) -> int:
        """The newest LSN that a COMMIT after `offset` names as durable; 0 if there is none."""
        durable = 0
        budget = self.size + layout.PAYLOAD_BYTES_MAX  # frames do not overlap; what claims to was made to cost time
        for candidate in self.find_magic(offset + 1):
            try:
                header = self.frame_header(candidate)
                budget -= header.body_bytes
                if header.is_commit and budget > 0:
                    durable = max(durable, self.batch(candidate, header, payload=False).counts[-1])
            except FrameError:
                continue
        return durable

    def _bytes(self, offset: int, length: int) -> memoryview:
        """Bytes of the file, fewer at its end; good until the next call, as the buffer is used again."""
        start = offset - self._buffer_at
        if start < 0 or start + length > self._buffered:
            wanted = min(max(length, self._read_bytes), max(0, self.size - offset))
            if wanted > len(self._buffer):
                self._buffer = memoryview(bytearray(wanted))
            self._buffered = self._file.pread_into([self._buffer[:wanted]], offset) if wanted else 0
            self._buffer_at, start = offset, 0
        return self._buffer[start : min(start + length, self._buffered)]


def later_format(path: str, error: NewerFrameError) -> NewerJournalError:
    """The error for whole bytes of a journal file or base that are of a later format."""
    return NewerJournalError(f"{error}: a newer one wrote it", where=path, remedy=USE_A_LATER_ONE)


def corrupt(path: str, offset: int, lsn: Lsn, why: str) -> CorruptJournalError:
    """The error for bytes of a file that were durable and are not what was written."""
    return CorruptJournalError(
        f"damaged at offset {offset} (LSN {lsn}): {why}",
        where=path,
        remedy=COPY_AGAIN,
    )
