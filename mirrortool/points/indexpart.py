"""A part of an index: of some frames that follow each other, everything but the pages. Bytes to columns and back.

An index of a journal file, or of a base, is one part after another. Each is a header, then columns without a gap.
mirrortool-journal(5) holds the same tables. Numbers are little-endian, but page sums.

Index header
    offset size field           meaning
    0      8    magic           89 4D 4A 49 0D 0A 1A 0A: a text transfer damages it visibly
    8      4    version         1
    12     4    kind            1 of a journal file, 2 of a base
    16     16   uuid            of the journal
    32     8    lsn             the first of the journal file; the LSN of the base
    40     8    start_lsn       before the first frame; of a base, how many frames are before it
    48     8    start_chain     chain value there; of a base, the file_checksum of its end record
    56     8    end_lsn         as start_lsn, after the last frame
    64     8    end_chain       as start_chain, after the last frame
    72     4    page_size       bytes
    76     4    frames          how many
    80     4    operations      how many; of a base 0, as they are not kept
    84     4    pages           written, and so page sums; of a base 0
    88     8    body_checksum   xxh3-64 of the columns
    96     24   reserved        0
    120    8    checksum        xxh3-64 of bytes 0-119

Index columns
    offsets     8 bytes for each frame: of it in its file
    marks       8 bytes for each frame: the chain value after it; of a base, the xxh3-64 of its body without the payload
    firsts      8 bytes for each frame: pages that frames before it in this part write; of a base, its first page
    counts      4 bytes for each frame: pages that it writes
    operations  4 bytes for each frame: how many it has
    heads       4 bytes for each frame: from its start to its payload, in bytes
    stored      4 bytes for each frame: stored bytes of the payload
    codecs      1 byte for each frame: of the payload
    kinds       1 byte for each operation, as in the frame body
    pages       8 bytes for each operation, as in the frame body
    counts      8 bytes for each operation, as in the frame body
    sums        8 bytes for each page written, as in the frame body

Rule: no part is believed that does not have its checksums.
Bound: PART_OPERATIONS and a frame. Not here: where an index lies, and of what it must be (indexfile.py).
"""

from __future__ import annotations

import itertools
import operator
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import xxhash

from mirrortool.address import PAGE_SIZE_MIN
from mirrortool.checksum import SUM_BYTES, Buffer
from mirrortool.files import File
from mirrortool.journal import format as layout
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.position import Position
from mirrortool.lsn import Lsn
from mirrortool.operation import Batch, Kind

MAGIC = b"\x89MJI\r\n\x1a\n"
HEADER = struct.Struct("<8sII16sQQQQQIIIIQ24xQ")
assert HEADER.size == 128
VERSION = 1
PART_OPERATIONS = 1 << 12
"""A part ends with the frame that has this operation, or page."""
_FRAMES_MAX = 1 << 20
_OPERATIONS_MAX = PART_OPERATIONS + layout.PAYLOAD_BYTES_MAX // PAGE_SIZE_MIN
_OFFSET_MAX = 1 << 62
_HEAD_BYTES_MAX = 2 * layout.PAYLOAD_BYTES_MAX
_IS_WRITE = bytes(kind == Kind.WRITE for kind in range(256))
_KINDS = bytes(Kind)


class IndexKind(IntEnum):
    """What an index is of. The value is in its header."""

    JOURNAL_FILE = 1
    BASE = 2


class UnsoundIndexError(Exception):
    """These bytes are no part of the index that is wanted; it is made anew, or done without."""


@dataclass(slots=True)
class FrameTable:
    """Where frames lie: the first columns of an index, with an entry a frame."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    marks: array[int] = field(default_factory=lambda: array("Q"))
    firsts: array[int] = field(default_factory=lambda: array("Q"))
    counts: array[int] = field(default_factory=lambda: array("I"))
    operations: array[int] = field(default_factory=lambda: array("I"))
    heads: array[int] = field(default_factory=lambda: array("I"))
    stored: array[int] = field(default_factory=lambda: array("I"))
    codecs: array[int] = field(default_factory=lambda: array("B"))

    def __len__(self) -> int:
        return len(self.offsets)

    def columns(self) -> list[array[int]]:
        """All of them, in the order in which they are stored."""
        return [
            self.offsets, self.marks, self.firsts, self.counts, self.operations, self.heads, self.stored, self.codecs
        ]  # fmt: skip

    def add(self, header: FrameHeader, offset: int, mark: int, first: int) -> None:
        """Take in a frame that was checked."""
        self.offsets.append(offset)
        self.marks.append(mark)
        self.firsts.append(first)
        self.counts.append(header.pages)
        self.operations.append(header.operations)
        self.heads.append(layout.FRAME_HEADER.size + header.body_bytes - header.payload_bytes)
        self.stored.append(header.payload_bytes)
        self.codecs.append(header.codec)


TABLE_ROW_BYTES = sum(column.itemsize for column in FrameTable().columns())
_OPERATION_BYTES = layout.COLUMN_BYTES


@dataclass(slots=True)
class IndexPart:
    """A part, whole in memory; positions as in the table above.

    Attributes:
        kinds, pages, counts: of each operation, as in a Batch; of a base, none.
        sums: of each page written, packed.
    """

    start: Position
    end: Position
    frames: FrameTable = field(default_factory=FrameTable)
    kinds: bytearray = field(default_factory=bytearray)
    pages: array[int] = field(default_factory=lambda: array("Q"))
    counts: array[int] = field(default_factory=lambda: array("Q"))
    sums: bytearray = field(default_factory=bytearray)

    @property
    def page_count(self) -> int:
        """Pages written."""
        return len(self.sums) // SUM_BYTES

    @property
    def is_full(self) -> bool:
        """Whether the next frame belongs to another part."""
        return max(len(self.kinds), self.page_count, len(self.frames)) >= PART_OPERATIONS

    def add(self, header: FrameHeader, batch: Batch, offset: int) -> None:
        """Take in the next frame of a journal file; its payload is not needed."""
        self.frames.add(header, offset, header.position.chain, self.page_count)
        self.kinds += batch.kinds
        self.pages.extend(batch.pages)
        self.counts.extend(batch.counts)
        self.sums += batch.sums
        self.end = header.position


@dataclass(frozen=True, slots=True)
class IndexOwner:
    """What an index must be of.

    Attributes:
        lsn: the first of the journal file, or that of the base.
    """

    kind: IndexKind
    uuid: bytes
    page_size: int
    lsn: Lsn


def encode_part(part: IndexPart, owner: IndexOwner) -> list[Buffer]:
    """A part as buffers to be written one after another."""
    body = [_to_bytes(column) for column in part.frames.columns()]
    body += [bytes(part.kinds), _to_bytes(part.pages), _to_bytes(part.counts), bytes(part.sums)]
    header = HEADER.pack(
        MAGIC, VERSION, owner.kind, owner.uuid, owner.lsn, part.start.lsn, part.start.chain, part.end.lsn,
        part.end.chain, owner.page_size, len(part.frames), len(part.kinds), part.page_count, _digest(body), 0,
    )[: -layout.CHECKSUM_BYTES]  # fmt: skip
    return [header + xxhash.xxh3_64_intdigest(header).to_bytes(layout.CHECKSUM_BYTES, "little"), *body]


def stored_parts(file: File, owner: IndexOwner) -> Iterator[tuple[IndexPart, int]]:
    """The parts of an index one after another, each with the offset at which it ends.

    Raises:
        UnsoundIndexError: at the first that is another's, or not whole.
    """
    offset, size = 0, file.size()
    while offset < size:
        header = _decode_header(file.pread(HEADER.size, offset), owner)
        length = header.frames * TABLE_ROW_BYTES + header.operations * _OPERATION_BYTES + header.pages * SUM_BYTES
        if offset + HEADER.size + length > size:
            raise UnsoundIndexError
        body = file.pread(length, offset + HEADER.size)
        if xxhash.xxh3_64_intdigest(body) != header.body_checksum:
            raise UnsoundIndexError
        offset += HEADER.size + length
        yield _decode(header, body, owner), offset


@dataclass(frozen=True, slots=True)
class _PartHeader:
    start: Position
    end: Position
    frames: int
    operations: int
    pages: int
    body_checksum: int


def _decode_header(data: bytes, owner: IndexOwner) -> _PartHeader:
    if len(data) < HEADER.size:
        raise UnsoundIndexError
    (
        magic, version, kind, uuid, lsn, start_lsn, start_chain, end_lsn, end_chain, page_size, frames, operations,
        pages, body_checksum, checksum,
    ) = HEADER.unpack(data)  # fmt: skip
    is_of = (magic, version, kind, uuid, lsn, page_size) == (
        MAGIC, VERSION, owner.kind, owner.uuid, owner.lsn, owner.page_size
    )  # fmt: skip
    is_bounded = frames <= _FRAMES_MAX and max(operations, pages) <= _OPERATIONS_MAX
    counted = operations if owner.kind == IndexKind.JOURNAL_FILE else frames
    is_sound = xxhash.xxh3_64_intdigest(data[: -layout.CHECKSUM_BYTES]) == checksum
    if not (is_of and is_bounded and is_sound and end_lsn - start_lsn == counted):
        raise UnsoundIndexError
    return _PartHeader(
        Position(Lsn(start_lsn), start_chain), Position(Lsn(end_lsn), end_chain), frames, operations, pages,
        body_checksum,
    )  # fmt: skip


def _decode(header: _PartHeader, body: bytes, owner: IndexOwner) -> IndexPart:
    view, part = memoryview(body), IndexPart(header.start, header.end)
    part.frames, at = decode_table(view, header.frames)
    part.kinds = bytearray(view[at : at + header.operations])
    at += header.operations
    for column in (part.pages, part.counts):
        column.frombytes(view[at : at + header.operations * column.itemsize])
        at += header.operations * column.itemsize
        _swap(column)
    part.sums = bytearray(view[at:])
    if not _is_plausible(part, owner):
        raise UnsoundIndexError
    return part


def decode_table(view: Buffer, frames: int) -> tuple[FrameTable, int]:
    """The columns of a table of that many frames at the start of a buffer, and their bytes."""
    table, at = FrameTable(), 0
    for column in table.columns():
        column.frombytes(view[at : at + frames * column.itemsize])
        at += frames * column.itemsize
        _swap(column)
    return table, at


def encode_table(table: FrameTable) -> bytes:
    """The columns of a table, one after another."""
    return b"".join(map(_to_bytes, table.columns()))


def _is_plausible(part: IndexPart, owner: IndexOwner) -> bool:
    """Whether it can be used without a look at each entry: it has its checksum, but may have been made to do harm."""
    frames, writes = part.frames, itertools.compress(part.counts, part.kinds.translate(_IS_WRITE))
    if not len(frames) or part.kinds.translate(None, _KINDS) or sum(writes) != part.page_count:
        return False
    if owner.kind == IndexKind.JOURNAL_FILE and not (
        sum(frames.operations) == len(part.kinds)
        and frames.firsts[0] == 0
        and frames.firsts[-1] + frames.counts[-1] == part.page_count
        and all(map(operator.eq, frames.firsts[1:], map(operator.add, frames.firsts, frames.counts)))
    ):
        return False
    pages_most = layout.PAYLOAD_BYTES_MAX // owner.page_size
    return (
        max(frames.offsets) < _OFFSET_MAX
        and max(frames.counts) <= pages_most
        and max(frames.operations) <= layout.OPERATIONS_MAX
        and max(frames.stored) <= layout.PAYLOAD_BYTES_MAX
        and max(frames.heads) <= _HEAD_BYTES_MAX
        and max(frames.codecs) <= layout.CODEC_LZ4
    )


def _digest(buffers: list[bytes]) -> int:
    digest = xxhash.xxh3_64()
    for buffer in buffers:
        digest.update(buffer)
    return digest.intdigest()


def _to_bytes(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def _swap(column: array[int]) -> None:
    if sys.byteorder == "big":
        column.byteswap()
