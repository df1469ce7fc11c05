"""Index files: JOURNAL/index/, where they are kept, made and looked for.

NAME.index is of the journal file or base NAME: one part after another (indexpart.py), made when that is first read. It
holds nothing that cannot be made again. That of a journal file may end before the file does, and is continued then.

Rule: a part counts only if it has its checksums, follows the part before it, and the frame with which it ends lies in
the file where it says, with the chain value that it says. So one of a file that a promotion cut, or that another took
the place of, is stale. The parts of a base count together, if its end record has the checksum that they have.
Rule: an index is written beside, under a name of its own, and renamed; nothing is made durable. Of two processes that
make one at once the last wins, and both are right. What a crash leaves fails its checksums.
Rule: a journal that cannot be written is read as well, without an index.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import xxhash

from mirrortool import files
from mirrortool.errors import CorruptJournalError, HostError
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.journal.bases import basefile
from mirrortool.journal.bases.basefile import BaseFile
from mirrortool.journal.codec import FrameError
from mirrortool.journal.directory import Journal
from mirrortool.journal.journalfile import COPY_AGAIN, JournalFile
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.unfinished import check_finished
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import Batch
from mirrortool.points.indexpart import IndexKind, IndexOwner, IndexPart, UnsoundIndexError, encode_part, stored_parts

OnRead = Callable[[int], None]
"""Called with the bytes of a journal file or base that were read since the last call."""


def parts_of_file(journal: Journal, start: Position, last_lsn: Lsn, on_read: OnRead) -> Iterator[IndexPart]:
    """The parts of a journal file up to an LSN at least: from its index, as far as there is a sound one.

    Args:
        start: where the file begins.
        last_lsn: of a frame's end in it.
    Raises:
        JournalError: the file is damaged, torn or forked before that LSN.
    """
    owner = IndexOwner(IndexKind.JOURNAL_FILE, journal.uuid, journal.page_size, start.next_lsn)
    position, offset = start, None
    with _IndexWriter(journal.index_path(layout.file_name(start.next_lsn)), owner) as writer:
        with suppress(UnsoundIndexError):
            for part in _kept_in_file(journal, writer, start):
                position, offset = part.end, part.frames.offsets[-1]
                yield part
                if position.lsn >= last_lsn:
                    return
        with JournalReader(journal, first_lsn=start.next_lsn) as reader:
            if offset is not None:
                reader.skip_past(offset)
            for part in _read_file(reader, last_lsn, on_read):
                if part.is_full or _is_sealed(journal, part.end):
                    writer.add(part)
                yield part


def parts_of_base(journal: Journal, base: BaseFile, on_read: OnRead) -> Iterator[IndexPart]:
    """The parts of a base; from its index, if there is a sound one, which is made otherwise.

    Raises:
        CorruptJournalError: the base is damaged.
    """
    lsn, checksum = base.header.position.lsn, base.file_checksum()
    owner = IndexOwner(IndexKind.BASE, journal.uuid, journal.page_size, lsn)
    start, end = Position(NO_LSN, checksum), Position(Lsn(base.frame_count()), checksum)
    with _IndexWriter(journal.index_path(basefile.file_name(lsn)), owner) as writer:
        if _is_whole(writer, start, end):
            yield from writer.kept()
            return
        for part in _read_base(base, checksum, on_read):
            writer.add(part)
            yield part


def _kept_in_file(journal: Journal, writer: _IndexWriter, start: Position) -> Iterator[IndexPart]:
    """What is kept of a journal file's index, each part compared with the file."""
    with closing(JournalFile(journal, start.next_lsn, headers_only=True)) as file:
        position = start
        for part in writer.kept():
            try:
                is_there = file.frame_header(part.frames.offsets[-1]).position == part.end
            except FrameError:
                is_there = False
            if not is_there or part.start != position:
                raise UnsoundIndexError
            writer.keep()
            position = part.end
            yield part


def _is_whole(writer: _IndexWriter, start: Position, end: Position) -> bool:
    """Whether an index that is kept leads from one position to another, and all of it is sound."""
    position = start
    with suppress(UnsoundIndexError):
        for part in writer.kept():
            if part.start != position:
                return False
            position = part.end
        return position == end
    return False


def _is_sealed(journal: Journal, position: Position) -> bool:
    """Whether the journal file that ends there, if it does, gets no more frames: another begins there."""
    return files.exists(journal.file_path(position.next_lsn))


class _IndexWriter:
    """An index, as it is kept, and then continued or begun anew; `with` renames it. What fails ends that, and no more.

    Used by one thread.
    """

    def __init__(self, path: str, owner: IndexOwner) -> None:
        self._path, self._owner = path, owner
        self._old: File | None = None
        self._seen_to = self._kept_to = 0  # offsets in it: of the part that was given last, of what is continued
        self._new: File | None = None
        self._offset = 0
        self._has_failed = False
        with suppress(HostError):
            self._old = files.open_file(path, follow=False)

    def __enter__(self) -> _IndexWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._old:
            self._old.close()
        if self._new:
            with self._giving_up():
                files.rename_unsynced(self._new.path, self._path)
                self._new.close()

    def kept(self) -> Iterator[IndexPart]:
        """The parts that are kept.

        Raises:
            UnsoundIndexError: at the first that is not sound.
        """
        if self._old is None:
            return
        try:
            for part, end in stored_parts(self._old, self._owner):
                self._seen_to = end
                yield part
        except HostError:
            raise UnsoundIndexError from None

    def keep(self) -> None:
        """What `kept` has given stays."""
        self._kept_to = self._seen_to

    def add(self, part: IndexPart) -> None:
        """Append a part to what stays."""
        if self._has_failed:
            return
        with self._giving_up():
            file = self._new or self._begin()
            buffers = encode_part(part, self._owner)
            file.pwritev(buffers, self._offset)
            self._offset += sum(map(len, buffers))

    def _begin(self) -> File:
        files.make_directory_unsynced(files.parent(self._path), exist_ok=True)
        temporary = f"{self._path}.{secrets.token_hex(4)}.new"
        file = self._new = files.open_file(temporary, write=True, create=True, exclusive=True)
        if self._old:
            files.copy_range(self._old, file, 0, self._kept_to)
            self._offset = self._kept_to
        return file

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """What the operating system refuses, such as for want of room, only means that there is no index."""
        try:
            yield
        except HostError:
            self._has_failed = True
            if self._new:
                self._new.close()
                with suppress(HostError):
                    files.remove(self._new.path)
                self._new = None


def _read_file(reader: JournalReader, last_lsn: Lsn, on_read: OnRead) -> Iterator[IndexPart]:
    """Parts made of the frames of the reader's file, which are checked, up to an LSN."""
    part = IndexPart(reader.position, reader.position)
    while reader.position.lsn < last_lsn:
        on_read(_add_frame(reader, part))
        if part.is_full:
            yield part
            part = IndexPart(part.end, part.end)
    if len(part.frames):
        yield part


def _add_frame(reader: JournalReader, part: IndexPart) -> int:
    """Add the next frame of a file to a part; returns its bytes."""
    first_lsn = reader.file_first_lsn
    header = reader.next_header()
    if header is None or reader.file_first_lsn != first_lsn:
        check_finished(reader.journal.path)
        raise CorruptJournalError(
            f"ends at LSN {part.end.lsn}, before what is to be read",
            where=reader.journal.file_path(first_lsn),
            remedy=COPY_AGAIN,
        )
    length = layout.FRAME_HEADER.size + header.body_bytes
    part.add(header, reader.batch(payload=False), reader.offset - length)
    return length


def _read_base(base: BaseFile, checksum: int, on_read: OnRead) -> Iterator[IndexPart]:
    """The parts of a base, made of its frames, all of which are checked."""
    part = IndexPart(Position(NO_LSN, checksum), Position(NO_LSN, checksum))
    for done, (header, batch) in enumerate(base.frames(payload=False), 1):
        length = layout.FRAME_HEADER.size + header.body_bytes
        part.frames.add(header, base.checked - length, columns_checksum(batch), batch.pages[0])
        on_read(length)
        part.end = Position(Lsn(done), checksum)
        if part.is_full:
            yield part
            part = IndexPart(part.end, part.end)
    if len(part.frames):
        yield part


def columns_checksum(batch: Batch) -> int:
    """The xxh3-64 of what lies before the payload in the body of a base's frame."""
    digest = xxhash.xxh3_64(batch.kinds)
    for column in (batch.pages, batch.counts):
        digest.update(struct.pack(f"<{len(column)}Q", *column))
    digest.update(batch.sums)
    return digest.intdigest()
