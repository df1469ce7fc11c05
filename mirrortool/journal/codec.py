"""Frames to bytes and back; no I/O.

Decoding trusts nothing: lengths are checked against their limits and against each other before anything is allocated,
then the checksum, then every operation. What cannot be decoded raises FrameError; whether that is a torn tail or damage
only the reader can tell, which knows what was durable.
"""

from __future__ import annotations

import itertools
import operator
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import lz4.block
import xxhash

from mirrortool.address import ADDRESS_LIMIT, is_page_size
from mirrortool.checksum import SUM_BYTES, Buffer
from mirrortool.journal import format as layout
from mirrortool.journal.position import Position
from mirrortool.lsn import Lsn
from mirrortool.operation import MARK_NAME, Batch, CommitKind, Kind

_FLAGS = layout.FLAG_CAPTURED | layout.FLAG_COMMIT
_COMMIT_KINDS = frozenset(CommitKind)
_KIND_BYTES = bytes(Kind)
_SAMPLED_BYTES_MIN = 32 << 10
_WORTHWHILE = 15 / 16
"""A sample that shrinks less than to this is as good as random."""
_SAMPLE_PIECES, _SAMPLE_BYTES, _SAMPLE_STRIDE = 16, 256, 1237
_JOINED_BYTES_MAX = 64 << 10
"""A shorter payload is copied: that costs less than another buffer to sum and to write."""


class FrameError(Exception):
    """These bytes are not a frame; the text says why."""


class NewerFrameError(FrameError):
    """Whole, with the checksums that it must have, and of a later format: neither a torn tail nor damage."""


class ShortFrameError(FrameError):
    """The bytes end inside the frame."""


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The header of a journal file; fields as in format.py."""

    page_size: int
    uuid: bytes
    lineage: bytes
    epoch: int
    first_lsn: Lsn
    chain: int
    time_ns: int
    state_sum: int

    @property
    def start(self) -> Position:
        """The position before the first frame."""
        return Position(Lsn(self.first_lsn - 1), self.chain)


class FrameHeader(NamedTuple):
    """The header of a frame; fields as in format.py, and the position that the frame leads to.

    A tuple, because one is made for each frame that is passed on, and a frozen dataclass costs five times as much.
    """

    operations: int
    first_lsn: Lsn
    pages: int
    payload_bytes: int
    codec: int
    flags: int
    name_bytes: int
    time_ns: int
    chain: int
    state_sum: int
    body_checksum: int
    position: Position

    @property
    def body_bytes(self) -> int:
        """Bytes that follow the header."""
        columns = self.operations * layout.COLUMN_BYTES
        return columns + self.name_bytes + self.pages * SUM_BYTES + self.payload_bytes

    @property
    def is_commit(self) -> bool:
        return bool(self.flags & layout.FLAG_COMMIT)

    @property
    def is_captured(self) -> bool:
        return bool(self.flags & layout.FLAG_CAPTURED)


@dataclass(frozen=True, slots=True)
class Stored:
    """A payload as it is stored; made apart from the frame so that several threads can compress at once."""

    codec: int
    data: Buffer


def compress(payload: Buffer) -> Stored:
    """The payload as an LZ4 block, or as it is where that is no larger. Releases the GIL while it works.

    Of a long payload a sample is tried first: where that hardly shrinks, such as of what is encrypted or compressed
    already, LZ4 would cost more than all else that is done with the payload.
    """
    if not payload or (len(payload) >= _SAMPLED_BYTES_MIN and not _shrinks(_sample(payload))):
        return Stored(layout.CODEC_RAW, payload)
    packed = lz4.block.compress(payload, store_size=False)
    return Stored(layout.CODEC_LZ4, packed) if len(packed) < len(payload) else Stored(layout.CODEC_RAW, payload)


def _sample(payload: Buffer) -> bytes:
    """Pieces from all over, each from another part of its page: a page may be half data and half padding."""
    view, step = memoryview(payload), len(payload) // _SAMPLE_PIECES
    starts = (number * step + number * _SAMPLE_STRIDE % (step - _SAMPLE_BYTES) for number in range(_SAMPLE_PIECES))
    return b"".join(view[start : start + _SAMPLE_BYTES] for start in starts)


def _shrinks(sample: bytes) -> bool:
    return len(lz4.block.compress(sample, store_size=False)) <= len(sample) * _WORTHWHILE


def encode_file_header(header: FileHeader) -> bytes:
    """128 bytes, as in format.py."""
    data = layout.FILE_HEADER.pack(
        layout.FILE_MAGIC, layout.VERSION, header.page_size, header.uuid, header.lineage, header.epoch, 0,
        header.first_lsn, header.chain, header.time_ns, header.state_sum, 0,
    )[: -layout.CHECKSUM_BYTES]  # fmt: skip
    return data + xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")


def decode_file_header(data: bytes) -> FileHeader:
    """The header at the start of a journal file.

    Raises:
        ShortFrameError: fewer than 128 bytes.
        FrameError: no journal file, or a checksum that does not match.
        NewerFrameError: a newer one.
    """
    if len(data) < layout.FILE_HEADER.size:
        raise ShortFrameError("the file ends inside its header")
    magic, version, page_size, uuid, lineage, epoch, _, first_lsn, chain, time_ns, state_sum, checksum = (
        layout.FILE_HEADER.unpack_from(data)
    )
    if magic != layout.FILE_MAGIC:
        raise FrameError("no journal file's header")
    if xxhash.xxh3_64_intdigest(data[: layout.FILE_HEADER.size - layout.CHECKSUM_BYTES]) != checksum:
        raise FrameError("the file header fails its checksum")
    if version > layout.VERSION:
        raise NewerFrameError(f"a journal file of format {version}, which this version does not know")
    if version != layout.VERSION or not is_page_size(page_size) or not first_lsn:
        raise FrameError("the file header contradicts itself")
    return FileHeader(page_size, uuid, lineage, epoch, first_lsn, chain, time_ns, state_sum)


def encode_frame(
    batch: Batch, stored: Stored, *, after: Position, time_ns: int, state_sum: int, captured: bool, seed: int
) -> tuple[list[Buffer], Position]:
    """A frame as buffers to be written one after another, and the position that it leads to.

    Args:
        after: the position of the frame before.
        state_sum: of the journal after this frame.
        seed: format.frame_seed of the place where it will be written.
    """
    count, kinds = len(batch.kinds), batch.kinds
    assert 0 < count <= layout.OPERATIONS_MAX and len(batch.payload) <= layout.PAYLOAD_BYTES_MAX
    name = batch.name.encode() if batch.name else b""
    columns = b"".join((kinds, _little_endian(batch.pages), _little_endian(batch.counts), name, batch.sums))
    if len(stored.data) <= _JOINED_BYTES_MAX:
        body: list[Buffer] = [columns + stored.data]
        checksum = xxhash.xxh3_64_intdigest(body[0])
    else:
        body = [columns, stored.data]
        digest = xxhash.xxh3_64(columns)
        digest.update(stored.data)
        checksum = digest.intdigest()
    flags = (layout.FLAG_CAPTURED if captured else 0) | (layout.FLAG_COMMIT if kinds[-1] >= Kind.COMMIT else 0)
    header = layout.FRAME_HEADER.pack(
        layout.FRAME_MAGIC, count, after.lsn + 1, len(batch.sums) // SUM_BYTES, len(stored.data), stored.codec, flags,
        len(name), 0, time_ns, after.chain, state_sum, checksum, 0,
    )[: -layout.CHECKSUM_BYTES]  # fmt: skip
    seeded = xxhash.xxh3_64_intdigest(header, seed).to_bytes(layout.CHECKSUM_BYTES, "little")
    position = Position(Lsn(after.lsn + count), xxhash.xxh3_64_intdigest(header))
    return [header + seeded, *body], position


def decode_frame_header(data: Buffer, seed: int, page_size: int) -> FrameHeader:
    """The frame header at the start of `data`.

    Raises:
        ShortFrameError: fewer than 72 bytes.
        FrameError: anything else is wrong with it.
        NewerFrameError: a newer mirrortool wrote it.
    """
    size = layout.FRAME_HEADER.size
    if len(data) < size:
        raise ShortFrameError("the file ends inside a frame header")
    covered = bytes(data[: size - layout.CHECKSUM_BYTES])
    (
        magic, operations, first_lsn, pages, payload_bytes, codec, flags, name_bytes, reserved, time_ns, chain,
        state_sum, body_checksum, checksum,
    ) = layout.FRAME_HEADER.unpack_from(data)  # fmt: skip
    if magic != layout.FRAME_MAGIC:
        raise FrameError("no frame here")
    if xxhash.xxh3_64_intdigest(covered, seed) != checksum:
        raise FrameError("the frame header fails its checksum")
    if reserved or flags & ~_FLAGS or codec > layout.CODEC_LZ4:
        raise NewerFrameError("a frame with flags or a codec that this version does not know")
    header = FrameHeader(
        operations, first_lsn, pages, payload_bytes, codec, flags, name_bytes, time_ns, chain, state_sum,
        body_checksum, Position(first_lsn + operations - 1, xxhash.xxh3_64_intdigest(covered)),
    )  # fmt: skip
    if not _is_plausible(header, page_size):
        raise FrameError("the frame header contradicts itself")
    return header


def stored_bytes(data: Buffer) -> int:
    """How long the frame at the start of `data` claims to be, in bytes; nothing is checked."""
    _, operations, _, pages, payload_bytes, _, _, name_bytes, *_ = layout.FRAME_HEADER.unpack_from(data)
    columns = operations * layout.COLUMN_BYTES
    return int(layout.FRAME_HEADER.size + columns + name_bytes + pages * SUM_BYTES + payload_bytes)


def check_body(header: FrameHeader, body: Buffer) -> None:
    """Raise FrameError unless the body has the checksum that its frame's header gives it."""
    if xxhash.xxh3_64_intdigest(body) != header.body_checksum:
        raise FrameError("the frame fails its checksum")


def durable_lsn_in(header: FrameHeader, body: Buffer) -> int:
    """The LSN up to which a commit's frame says that all is durable; 0 for any other frame. The body was checked."""
    counts_end = header.operations * layout.COLUMN_BYTES
    return int.from_bytes(body[counts_end - 8 : counts_end], "little") if header.is_commit else 0


def _is_plausible(header: FrameHeader, page_size: int) -> bool:
    raw_bytes = header.pages * page_size
    most = header.payload_bytes * (layout.LZ4_RATIO_MAX if header.codec == layout.CODEC_LZ4 else 1)
    return (
        0 < header.operations <= layout.OPERATIONS_MAX
        and header.first_lsn > 0
        and header.position.lsn < 1 << 63
        and raw_bytes <= layout.PAYLOAD_BYTES_MAX
        and header.payload_bytes <= raw_bytes <= most
    )


def decode_body(header: FrameHeader, body: Buffer, page_size: int, *, payload: bool = True) -> Batch:
    """The operations of a frame; `body` holds exactly `header.body_bytes`.

    Args:
        payload: whether the pages are wanted; without them the batch's payload is empty.
    Returns:
        A batch that shares no memory with `body`.
    Raises:
        FrameError: a checksum fails, the payload does not decompress, or an operation is not valid.
    """
    view = memoryview(body)
    assert len(view) == header.body_bytes
    check_body(header, view)
    count = header.operations
    pages_at, counts_at, name_at = count, 9 * count, 17 * count
    sums_at = name_at + header.name_bytes
    payload_at = sums_at + header.pages * SUM_BYTES
    name = bytes(view[name_at:sums_at]).decode("ascii", "replace") or None
    batch = Batch(
        bytes(view[:pages_at]),
        _from_little_endian(view[pages_at:counts_at]),
        _from_little_endian(view[counts_at:name_at]),
        bytes(view[sums_at:payload_at]),
        _decompress(header, view[payload_at:], page_size) if payload else b"",
        name,
    )
    _check_operations(header, batch, page_size)
    return batch


def _decompress(header: FrameHeader, stored: memoryview, page_size: int) -> Buffer:
    if header.codec == layout.CODEC_RAW:
        return bytes(stored)
    size = header.pages * page_size
    try:
        data: bytes = lz4.block.decompress(stored, uncompressed_size=size)
    except lz4.block.LZ4BlockError:
        raise FrameError("the payload does not decompress") from None
    if len(data) != size:
        raise FrameError("the payload decompresses to another length")
    return data


def _check_operations(header: FrameHeader, batch: Batch, page_size: int) -> None:
    """Every operation is one that a recorder may write. Counts in C where it can: frames hold thousands."""
    kinds, pages, counts = batch.kinds, batch.pages, batch.counts
    if kinds.translate(None, _KIND_BYTES):
        raise NewerFrameError("an operation of a kind that this version does not know")
    if header.is_commit != batch.is_commit or (batch.name is not None) != (kinds[-1] == Kind.MARK):
        raise FrameError("a commit that is not flagged, or a mark without a name")
    if batch.is_commit:
        if pages[-1] not in _COMMIT_KINDS:
            raise NewerFrameError("a commit of a kind that this version does not know")
        if not MARK_NAME.fullmatch(batch.name or "mark"):
            raise FrameError("a mark without a proper name")
        if counts[-1] >= header.position.lsn:
            raise FrameError("a commit that calls itself, or what follows it, durable")
        kinds, pages, counts = kinds[:-1], pages[:-1], counts[:-1]
    if Kind.COMMIT in kinds or Kind.MARK in kinds:
        raise FrameError("a commit that is not the frame's last operation")
    if Kind.RESIZE in kinds:
        kinds, pages, counts = _without_resizes(kinds, pages, counts)
    if kinds and (max(map(operator.add, pages, counts)) > ADDRESS_LIMIT // page_size or not min(counts)):
        raise FrameError("an operation outside the address space, or on no page")
    written = sum(counts) if Kind.ZERO not in kinds else sum(itertools.compress(counts, map(_is_write, kinds)))
    if written != header.pages:
        raise FrameError("the pages written do not add up")


def _without_resizes(kinds: bytes, pages: Sequence[int], counts: Sequence[int]) -> tuple[bytes, list[int], list[int]]:
    kept = [(kind, page, count) for kind, page, count in zip(kinds, pages, counts, strict=True) if kind != Kind.RESIZE]
    return bytes(k for k, _, _ in kept), [page for _, page, _ in kept], [count for _, _, count in kept]


def _is_write(kind: int) -> bool:
    return kind == Kind.WRITE


def _little_endian(column: Sequence[int]) -> bytes:
    values = column if isinstance(column, array) and column.typecode == "Q" else array("Q", column)
    if sys.byteorder == "big":
        values = array("Q", values)
        values.byteswap()
    return values.tobytes()


def _from_little_endian(data: memoryview) -> array[int]:
    values = array("Q")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values
