"""The bytes of a backing: a header, a table with a record for each cell, and the cells. mirrortool-mirror(5) holds the
same tables.

A cell is room for one extent, a piece of the address space of `extent` bytes. All numbers are little-endian.

Header
    offset size field           meaning
    0      8    magic           89 4D 42 4B 0D 0A 1A 0A: a text transfer damages it visibly
    8      4    version         1
    12     4    extent          bytes of an extent, and of a cell: a power of two, 64 KiB to 16 MiB
    16     16   uuid            of the backing; random
    32     16   mirror          uuid of the mirror that it belongs to
    48     8    size            bytes of the file or device that are used
    56     8    cells           how many
    64     8    data            offset of the first cell
    72     8    time            when it was made, nanoseconds since 1970 UTC
    80     424  reserved        0
    504    8    checksum        xxh3-64 of bytes 0-503

Record
    offset size field           meaning
    0      8    address         of the extent's first byte; all ones of a claimed cell
    8      8    sequence        of two records of one extent the higher one counts; 0 of a claimed cell
    16     8    reserved        0
    24     8    checksum        xxh3-64 of bytes 0-23, seeded with the cell's number plus the first 8 bytes of the uuid

The table begins at 4096, record after record; none crosses a sector of 512 bytes, which a device writes whole or not
at all. A record of zeros is that of a free cell. After the table the cells begin at a multiple of 64 KiB.

Not here: I/O (backing.py), and what a record allows (spanned.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from mirrortool.address import ADDRESS_LIMIT
from mirrortool.errors import NewerMirrorError, UnusableVolumeError
from mirrortool.jsonfile import later_format
from mirrortool.wording import exact_bytes, format_bytes

MAGIC = b"\x89MBK\r\n\x1a\n"
VERSION = 1
HEADER = struct.Struct("<8sII16s16sQQQQ424sQ")
HEADER_BYTES = 512
RECORD = struct.Struct("<QQQQ")
RECORD_BYTES = 32
TABLE_OFFSET = 4096
EXTENT_MIN = 64 << 10
EXTENT_MAX = 16 << 20
EXTENT_DEFAULT = 1 << 20
CELLS_MAX = 1 << 40
BACKINGS_MAX = 256
"""Of one mirror."""
NOWHERE = (1 << 64) - 1
FREE = bytes(RECORD_BYTES)

assert HEADER.size == HEADER_BYTES
assert RECORD.size == RECORD_BYTES and HEADER_BYTES % RECORD_BYTES == 0


@dataclass(frozen=True, slots=True)
class BackingHeader:
    """What a backing is.

    Attributes:
        uuid, mirror: 16 bytes each.
        extent_bytes: of an extent.
        size: bytes that it uses of its file or device.
        cells: how many extents it can hold.
        data_offset: of the first cell, in bytes.
        time_ns: when it was made.
    """

    uuid: bytes
    mirror: bytes
    extent_bytes: int
    size: int
    cells: int
    data_offset: int
    time_ns: int

    @classmethod
    def of_new(cls, uuid: bytes, mirror: bytes, extent_bytes: int, size: int, time_ns: int) -> BackingHeader:
        """Of a backing that is to use `size` bytes.

        Raises:
            UnusableVolumeError: there is no room for a single extent.
        """
        cells = max(0, size - TABLE_OFFSET) // (extent_bytes + RECORD_BYTES)
        while cells and data_offset(cells) + cells * extent_bytes > size:
            cells -= 1
        if not cells:
            what = f"{exact_bytes(size)} have no room for an extent of {format_bytes(extent_bytes)}"
            raise UnusableVolumeError(what, remedy="give it more, or choose a smaller --extent")
        return cls(uuid, mirror, extent_bytes, size, cells, data_offset(cells), time_ns)

    def to_bytes(self) -> bytes:
        fields = (
            MAGIC, VERSION, self.extent_bytes, self.uuid, self.mirror, self.size, self.cells, self.data_offset,
            self.time_ns, b"",
        )  # fmt: skip
        body = HEADER.pack(*fields, 0)[:-8]
        return body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")


def data_offset(cells: int) -> int:
    """Where the first cell begins, in bytes."""
    return -(-(TABLE_OFFSET + cells * RECORD_BYTES) // EXTENT_MIN) * EXTENT_MIN


def is_extent_size(size: int) -> bool:
    """Whether extents can have this many bytes."""
    return EXTENT_MIN <= size <= EXTENT_MAX and size & (size - 1) == 0


def parse_header(data: bytes, where: str) -> BackingHeader | None:
    """The header that a file or device begins with; None if it is no backing.

    Raises:
        UnusableVolumeError: it is one, but damaged.
        NewerMirrorError: it is one of a later version.
    """
    if data[:8] != MAGIC:
        return None
    if len(data) < HEADER_BYTES or xxhash.xxh3_64_intdigest(data[:504]) != int.from_bytes(data[504:512], "little"):
        raise _damaged(where)
    _, version, extent, uuid, mirror, size, cells, offset, time_ns, _, _ = HEADER.unpack(data[:HEADER_BYTES])
    if version > VERSION:
        raise later_format(NewerMirrorError, where, version, VERSION)
    if not is_extent_size(extent) or not 0 < cells <= CELLS_MAX or offset != data_offset(cells):
        raise _damaged(where)
    if offset + cells * extent > size:
        raise _damaged(where)
    return BackingHeader(uuid, mirror, extent, size, cells, offset, time_ns)


class RecordCodec:
    """Records of one backing, to bytes and back."""

    def __init__(self, header: BackingHeader) -> None:
        self._extent_bytes = header.extent_bytes
        self._seed = int.from_bytes(header.uuid[:8], "little")

    def used(self, cell: int, address: int, sequence: int) -> bytes:
        """The record of a cell that holds the extent at this address."""
        return self._seal(cell, address, sequence)

    def claimed(self, cell: int) -> bytes:
        """The record of a cell that holds no extent, and may hold any bytes."""
        return self._seal(cell, NOWHERE, 0)

    def _seal(self, cell: int, address: int, sequence: int) -> bytes:
        body = struct.pack("<QQQ", address, sequence, 0)
        return body + xxhash.xxh3_64_intdigest(body, (self._seed + cell) & NOWHERE).to_bytes(8, "little")

    def parse(self, data: bytes, first_cell: int) -> Iterator[tuple[int, int | None, int]]:
        """The cells in a piece of the table that are not free: (cell, address, sequence).

        The address is NOWHERE of a claimed cell, and None where the record is damaged.
        """
        for cell, record in enumerate(RECORD.iter_unpack(data), first_cell):
            address, sequence, reserved, checksum = record
            if not (checksum or address or sequence or reserved):
                continue
            begin = (cell - first_cell) * RECORD_BYTES
            body = data[begin : begin + 24]
            is_whole = xxhash.xxh3_64_intdigest(body, (self._seed + cell) & NOWHERE) == checksum
            yield cell, address if is_whole and self._is_valid(address, sequence, reserved) else None, sequence

    def _is_valid(self, address: int, sequence: int, reserved: int) -> bool:
        if reserved:
            return False
        if address == NOWHERE:
            return sequence == 0
        return address < ADDRESS_LIMIT and address % self._extent_bytes == 0 and sequence > 0


def _damaged(where: str) -> UnusableVolumeError:
    return UnusableVolumeError(
        "the header of this backing is damaged",
        where=where,
        remedy="bring back what was there, or make the mirror anew",
    )
