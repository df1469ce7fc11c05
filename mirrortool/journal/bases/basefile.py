"""A base: a whole committed state in one sealed file, so that older journal files can go.

`JOURNAL/bases/<LSN, 16 hexadecimal digits>.base` is a header, a table of the volumes, frames, and an end record. The
frames are those of a journal file (format.py), with a numbering of their own from 1: each holds captured WRITEs of the
pages that are not zero, in order of their addresses. mirrortool-journal(5) holds the same tables. All numbers are
little-endian, but page sums.

Header
    offset size field           meaning
    0      8    magic           89 4D 4A 42 0D 0A 1A 0A: a text transfer damages it visibly
    8      4    version         1
    12     4    page_size       bytes
    16     16   uuid            of the journal
    32     16   lineage         of the journal when the base was made
    48     4    epoch           of the journal when the base was made
    52     4    volumes         how many
    56     8    lsn             of the commit; the file's name in hexadecimal
    64     8    chain           chain value after the commit
    72     8    time            of the commit, nanoseconds since 1970 UTC
    80     8    state_sum       of the journal after the commit
    88     4    kind            of the commit: 1 flush, 2 interval, 3 scan
    92     4    table           bytes of the table of volumes
    96     24   reserved        0
    120    8    checksum        xxh3-64 of bytes 0-119 and of the table of volumes

Volume
    offset size field           meaning
    0      8    base            address of its first byte
    8      8    size            bytes, after the commit
    16     2    name            bytes of its name, which follows: ASCII

End record
    offset size field           meaning
    0      4    magic           4D 4A 42 45, "MJBE"
    4      4    reserved        0
    8      8    frames          how many
    16     8    pages           how many they hold
    24     8    file_checksum   xxh3-64 of everything before this record
    32     8    checksum        xxh3-64 of bytes 0-31 of this record

The chain value before the first frame is the header's checksum.

Rule: reading trusts nothing: lengths are checked before anything is allocated, and every page lies in a volume.
Bound: one frame in memory. Not here: writing one (basewriter.py), and which there are (listing.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from mirrortool import files
from mirrortool.address import is_page_size
from mirrortool.checksum import page_sums, state_term, unpack_sums
from mirrortool.errors import CorruptJournalError, ForkedJournalError, NewerJournalError, OtherJournalError, UsageError
from mirrortool.journal import format as layout
from mirrortool.journal.codec import (
    FrameError,
    FrameHeader,
    NewerFrameError,
    decode_body,
    decode_frame_header,
    stored_bytes,
)
from mirrortool.journal.description import empty_state_sum
from mirrortool.journal.directory import Journal
from mirrortool.journal.journalfile import later_format
from mirrortool.journal.position import Position
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.operation import Batch, CommitKind, Kind
from mirrortool.volume import VOLUMES_MAX, Volume, VolumeSet

MAGIC = b"\x89MJB\r\n\x1a\n"
HEADER = struct.Struct("<8sII16s16sIIQQQQII24xQ")
assert HEADER.size == 128
VOLUME = struct.Struct("<QQH")
assert VOLUME.size == 18
END_MAGIC = b"MJBE"
END = struct.Struct("<4sIQQQQ")
assert END.size == 40

VERSION = 1
_NAME_BYTES_MAX = 64
_TABLE_BYTES_MAX = VOLUMES_MAX * (VOLUME.size + _NAME_BYTES_MAX)
_NAME = re.compile(r"([0-9a-f]{16})\.base")
_KINDS = (CommitKind.FLUSH, CommitKind.INTERVAL, CommitKind.SCAN)
REMEDY = "take it away; mirrortool base makes another"


@dataclass(frozen=True, slots=True)
class BaseHeader:
    """What a base is of; fields as in the table above.

    Attributes:
        volumes: with their sizes after the commit.
    """

    page_size: int
    uuid: bytes
    lineage: bytes
    epoch: int
    position: Position
    time_ns: int
    state_sum: int
    kind: CommitKind
    volumes: tuple[Volume, ...]


def file_name(lsn: Lsn) -> str:
    """The name of the base of this LSN."""
    return f"{lsn:016x}.base"


def parse_file_name(name: str) -> Lsn | None:
    """The LSN of a base by its name; None for any other name."""
    match = _NAME.fullmatch(name)
    return (Lsn(int(match[1], 16)) if match else NO_LSN) or None


def frame_seed(uuid: bytes, lsn: Lsn, offset: int) -> int:
    """The seed of a frame header's checksum.

    No frame of a base can pass for one of a journal file, nor for one of another base or place.
    """
    return xxhash.xxh3_64_intdigest(uuid + b"base" + struct.pack("<QQ", lsn, offset))


def encode_header(header: BaseHeader) -> bytes:
    """The header and the table of volumes."""
    table = b"".join(
        VOLUME.pack(volume.start, volume.size, len(volume.name)) + volume.name.encode("ascii")
        for volume in header.volumes
    )
    data = HEADER.pack(
        MAGIC, VERSION, header.page_size, header.uuid, header.lineage, header.epoch, len(header.volumes),
        header.position.lsn, header.position.chain, header.time_ns, header.state_sum, header.kind, len(table), 0,
    )[: -layout.CHECKSUM_BYTES]  # fmt: skip
    return data + checksum(data + table) + table


def decode_header(data: bytes) -> BaseHeader:
    """The header at the start of a base.

    Args:
        data: the first `header_bytes_max()` bytes of the file, or all of a shorter one.
    Raises:
        FrameError: no base, a newer one, or one that contradicts itself.
    """
    if len(data) < HEADER.size:
        raise FrameError("the file ends inside its header")
    (
        magic, version, page_size, uuid, lineage, epoch, count, lsn, chain, time_ns, state_sum, kind, table_bytes,
        checksum,
    ) = HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        raise FrameError("no base's header")
    table = data[HEADER.size : HEADER.size + table_bytes]
    if table_bytes > _TABLE_BYTES_MAX or len(table) < table_bytes:
        raise FrameError("the file ends inside its table of volumes")
    if xxhash.xxh3_64_intdigest(data[: HEADER.size - layout.CHECKSUM_BYTES] + table) != checksum:
        raise FrameError("the header fails its checksum")
    if version > VERSION:
        raise NewerFrameError(f"a base of format {version}, which this version does not know")
    if version != VERSION or not is_page_size(page_size) or not 0 < lsn < 1 << 63 or kind not in _KINDS:
        raise FrameError("the header contradicts itself")
    volumes = tuple(_decode_volumes(table, count))
    return BaseHeader(
        page_size, uuid, lineage, epoch, Position(lsn, chain), time_ns, state_sum, CommitKind(kind), volumes
    )


def encode_end(frames: int, pages: int, file_checksum: int) -> bytes:
    """The end record."""
    data = END.pack(END_MAGIC, 0, frames, pages, file_checksum, 0)[: -layout.CHECKSUM_BYTES]
    return data + checksum(data)


def header_bytes_max() -> int:
    """The most bytes of a header and its table of volumes."""
    return HEADER.size + _TABLE_BYTES_MAX


def _decode_volumes(table: bytes, count: int) -> Iterator[Volume]:
    offset = 0
    for _ in range(count):
        if offset + VOLUME.size > len(table):
            raise FrameError("the table of volumes ends too early")
        base, size, length = VOLUME.unpack_from(table, offset)
        offset += VOLUME.size + length
        yield Volume(table[offset - length : offset].decode("ascii", "replace"), base, size)
    if offset != len(table):
        raise FrameError("the table of volumes has another length")


class BaseFile:
    """A base, open for reading; its header is checked.

    Attributes:
        header: what it is of.
        volumes: with their sizes after its commit.
        size: bytes of the file.
        checked: bytes from its start that were found sound, by the newest call of `frames`.
    """

    def __init__(self, journal: Journal, path: str, lsn: Lsn, *, size: int | None = None) -> None:
        """Open the base of this LSN.

        Args:
            size: bytes that the file is going to have, while it still arrives.
        Raises:
            OtherJournalError, ForkedJournalError: it belongs to another journal, or to another history of this one.
            CorruptJournalError: it cannot be decoded, or does not fit the journal.
        """
        self.path = path
        self._file = files.open_file(path)
        try:
            self._file.expect_sequential()
            self.size = self._file.size() if size is None else size
            self._load(journal, lsn)
        except FrameError as error:
            self.close()
            raise self._failure(0, error) from None
        except BaseException:
            self.close()
            raise

    def _load(self, journal: Journal, lsn: Lsn) -> None:
        data = self._file.pread(header_bytes_max(), 0)
        self.header = decode_header(data)
        if self.header.uuid != journal.uuid:
            raise OtherJournalError("this base belongs to another journal", where=self.path, remedy="take it away")
        placed = [(volume.name, volume.start) for volume in self.header.volumes]
        expected = [(volume.name, volume.start) for volume in journal.volumes]
        if self.header.position.lsn != lsn or self.header.page_size != journal.page_size or placed != expected:
            raise FrameError("the header does not fit the file's name or journal.json")
        self._check_history(journal)
        try:
            self.volumes = VolumeSet(self.header.volumes, journal.page_size)
        except UsageError as error:
            raise FrameError(error.what) from None
        self._start = HEADER.size + sum(VOLUME.size + len(volume.name) for volume in self.header.volumes)
        self._head = data[: self._start]
        self.checked = self._start

    def _check_history(self, journal: Journal) -> None:
        """It is of a commit that the journal has, or had, not one that a promotion dropped."""
        epoch = journal.history.find(self.header.epoch, self.header.lineage)
        end = journal.history.end_of(epoch) if epoch else None
        if epoch is None or (end is not None and self.header.position.lsn > end.lsn):
            raise ForkedJournalError(
                f"the base is of epoch {self.header.epoch}, and of a history that was not promoted",
                where=self.path,
                remedy="take it away",
            )

    def __enter__(self) -> BaseFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def drop_cache(self) -> None:
        """Let the next reads come from the device."""
        self._file.drop_cache()

    def frame_count(self) -> int:
        """How many frames it has, as its end record says; not checked against them.

        Raises:
            CorruptJournalError: there is no end record.
        """
        return self._end_at_size()[0]

    def page_count(self) -> int:
        """How many pages it holds, as its end record says; not checked against the frames.

        Raises:
            CorruptJournalError: there is no end record.
        """
        return self._end_at_size()[1]

    def file_checksum(self) -> int:
        """What its end record says of everything before that; two bases of a commit that differ have different ones.

        Raises:
            CorruptJournalError: there is no end record.
        """
        return self._end_at_size()[2]

    def raw(self, offset: int, length: int) -> bytes:
        """Bytes as they lie in the file, fewer at its end."""
        return self._file.pread(length, offset)

    def has_arrived(self, received: int) -> bool:
        """Whether what `frames` reads next is there, going by lengths that were not checked.

        Args:
            received: bytes of the file that are there.
        """
        head = self._file.pread(layout.FRAME_HEADER.size, self.checked)
        is_frame = len(head) == layout.FRAME_HEADER.size
        return received == self.size or (is_frame and self.checked + stored_bytes(head) <= received)

    def frames(self, *, payload: bool = True) -> Iterator[tuple[FrameHeader, Batch]]:
        """All frames, in order of their addresses; what they say is checked as far as they were read.

        Args:
            payload: whether the pages are wanted.
        Raises:
            CorruptJournalError: at the first thing that is wrong; of the state sum and the checksum of the whole at
                the end.
        """
        digest = xxhash.xxh3_64(self._head)
        chain = int.from_bytes(self._head[HEADER.size - layout.CHECKSUM_BYTES : HEADER.size], "little")
        position, offset, number, pages = Position(NO_LSN, chain), self._start, 0, 0
        next_page, state_sum = 0, empty_state_sum(self.volumes)
        self.checked = self._start
        while (data := self._file.pread(layout.FRAME_HEADER.size, offset))[:4] != END_MAGIC:
            try:
                header, batch, raw = self._frame(data, offset, payload)
                next_page = self._check(header, batch, position, next_page)
            except FrameError as error:
                raise self._failure(offset, error) from None
            state_sum ^= term_of(batch)
            if header.state_sum != state_sum:
                raise self._corrupt(offset, "the pages up to here do not give the frame's state sum")
            digest.update(raw[0])
            digest.update(raw[1])
            position, offset = header.position, offset + len(raw[0]) + len(raw[1])
            number, pages = number + 1, pages + batch.page_count
            self.checked = offset
            yield header, batch
        if self._end(data[: END.size], offset) != (number, pages, digest.intdigest()):
            raise self._corrupt(offset, "the end record does not fit what is before it")
        if offset + END.size != self.size:
            raise self._corrupt(offset + END.size, "something follows the end record")
        if state_sum != self.header.state_sum:
            raise self._corrupt(offset, "the pages do not give the state sum of the commit")

    def _frame(self, data: bytes, offset: int, payload: bool) -> tuple[FrameHeader, Batch, tuple[bytes, bytes]]:
        seed = frame_seed(self.header.uuid, self.header.position.lsn, offset)
        header = decode_frame_header(data, seed, self.header.page_size)
        if offset + len(data) + header.body_bytes > self.size:
            raise FrameError("the file ends inside a frame")
        body = self._file.pread(header.body_bytes, offset + len(data))
        if len(body) < header.body_bytes:
            raise FrameError("the file was cut while it was read")
        return header, decode_body(header, body, self.header.page_size, payload=payload), (data, body)

    def _check(self, header: FrameHeader, batch: Batch, after: Position, next_page: int) -> int:
        """A frame continues the one before it, with pages that follow and lie in volumes; returns the next page."""
        if header.first_lsn != after.lsn + 1 or header.chain != after.chain:
            raise FrameError("the frame does not continue the one before")
        if batch.is_commit or set(batch.kinds) != {Kind.WRITE} or not header.is_captured:
            raise FrameError("the frame holds something else than pages")
        for page, count in zip(batch.pages, batch.counts, strict=True):
            if page < next_page or self.volumes.find(page, count) is None:
                raise FrameError("a page out of order, or outside the volumes")
            next_page = page + count
        return next_page

    def _end_at_size(self) -> tuple[int, int, int]:
        offset = max(self._start, self.size - END.size)
        return self._end(self._file.pread(END.size, offset), offset)

    def _end(self, data: bytes, offset: int) -> tuple[int, int, int]:
        """Frames, pages and the checksum of the whole, as the end record says."""
        if len(data) < END.size:
            raise self._corrupt(offset, "the file ends before its end record")
        magic, _, frames, pages, file_checksum, checksum = END.unpack(data)
        covered = data[: END.size - layout.CHECKSUM_BYTES]
        if magic != END_MAGIC or xxhash.xxh3_64_intdigest(covered) != checksum:
            raise self._corrupt(offset, "no end record")
        return frames, pages, file_checksum

    def _failure(self, offset: int, error: FrameError) -> CorruptJournalError | NewerJournalError:
        if isinstance(error, NewerFrameError):
            return later_format(self.path, error)
        return self._corrupt(offset, str(error))

    def _corrupt(self, offset: int, why: str) -> CorruptJournalError:
        return CorruptJournalError(f"the base is damaged at offset {offset}: {why}", where=self.path, remedy=REMEDY)


def check_sums(batch: Batch, page_size: int) -> bool:
    """Whether the pages of a batch have the sums that it gives them."""
    payload = memoryview(batch.payload)
    pages = [payload[start : start + page_size] for start in range(0, len(payload), page_size)]
    return page_sums(pages, page_size) == bytes(batch.sums)


def term_of(batch: Batch) -> int:
    """What the pages of a batch of WRITEs add to the state sum."""
    term = 0
    for _, page, count, sums, _ in batch.runs():
        term ^= state_term(range(page, page + count), unpack_sums(sums))
    return term


def checksum(data: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(data).to_bytes(layout.CHECKSUM_BYTES, "little")
