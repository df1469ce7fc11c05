"""The bytes of a journal file: a header, then frames. mirrortool-journal(5) holds the same tables.

All numbers are little-endian, but page sums, which are stored as xxh3 digests are: big-endian.

File header
    offset size field           meaning
    0      8    magic           89 4D 4A 46 0D 0A 1A 0A: a text transfer damages it visibly
    8      4    version         1
    12     4    page_size       bytes
    16     16   uuid            of the journal
    32     16   lineage         random; new at each promotion
    48     4    epoch           counts promotions
    52     4    reserved        0
    56     8    first_lsn       of the first frame; the file's name in hexadecimal
    64     8    chain           chain value before the first frame
    72     8    time            the latest time of any frame before, nanoseconds since 1970 UTC
    80     8    state_sum       of the journal before the first frame
    88     32   reserved        0
    120    8    checksum        xxh3-64 of bytes 0-119

Frame header
    offset size field           meaning
    0      4    magic           4D 4A 46 31, "MJF1"
    4      4    operations      how many, 1 or more
    8      8    first_lsn       of the first operation
    16     4    pages           pages written, which is also how many page sums there are
    20     4    payload         stored bytes of the payload
    24     1    codec           0 as it is, 1 an LZ4 block
    25     1    flags           1 captured, 2 ends with a COMMIT or MARK; the others 0
    26     2    name            bytes of the MARK's name
    28     4    reserved        0
    32     8    time            nanoseconds since 1970 UTC; never less than in the frame before
    40     8    chain           chain value before this frame
    48     8    state_sum       of the journal after this frame
    56     8    body_checksum   xxh3-64 of the body
    64     8    checksum        xxh3-64 of bytes 0-63, seeded (see frame_seed)

Frame body
    kinds      1 byte for each operation: 1 WRITE, 2 ZERO, 3 RESIZE, 4 COMMIT, 5 MARK
    pages      8 bytes for each operation: first page; of RESIZE the volume's first page; of COMMIT and MARK why:
               1 flush, 2 interval, 3 scan, 4 fuzzy, 5 incomplete, 6 heartbeat
    counts     8 bytes for each operation: pages; of RESIZE the new size in bytes; of COMMIT and MARK the LSN known
               durable when it was written
    name       of the MARK, ASCII
    sums       8 bytes for each page written, big-endian: xxh3-64 of the page XOR xxh3-64 of a zero page
    payload    the pages written, in the order of the operations

The chain value after a frame is the xxh3-64 of bytes 0-63 of its header; before LSN 1 it is the xxh3-64 of the uuid.
"""

from __future__ import annotations

import re
import struct

import xxhash

from mirrortool.lsn import NO_LSN, Lsn

FILE_MAGIC = b"\x89MJF\r\n\x1a\n"
FILE_HEADER = struct.Struct("<8sII16s16sIIQQQQ32xQ")
assert FILE_HEADER.size == 128

FRAME_MAGIC = b"MJF1"
FRAME_HEADER = struct.Struct("<4sIQIIBBHIQQQQQ")
assert FRAME_HEADER.size == 72
CHECKSUM_BYTES = 8

VERSION = 1
CODEC_RAW = 0
CODEC_LZ4 = 1
FLAG_CAPTURED = 1
FLAG_COMMIT = 2
COLUMN_BYTES = 1 + 8 + 8

FILE_NAME = re.compile(r"([0-9a-f]{16})\.mj")
FILE_BYTES_TARGET = 64 << 20
"""A new file is begun before this is exceeded, unless one frame alone exceeds it."""
FILE_AGE_NS_MAX = 3600 * 10**9
"""… or when its first frame is older than this."""

# Limits on what a frame may hold, checked before anything is allocated for it.
OPERATIONS_MAX = 65536
PAYLOAD_BYTES_MAX = 64 << 20
LZ4_RATIO_MAX = 255
"""No LZ4 block expands further."""


def first_chain(uuid: bytes) -> int:
    """The chain value before LSN 1."""
    return xxhash.xxh3_64_intdigest(uuid)


def frame_seed(uuid: bytes, file_first_lsn: Lsn, offset: int) -> int:
    """The seed of a frame header's checksum.

    It binds the header to its journal, file and offset, so that no payload, and no frame of another place, can pass
    for a frame.
    """
    return xxhash.xxh3_64_intdigest(uuid + struct.pack("<QQ", file_first_lsn, offset))


def file_name(first_lsn: Lsn) -> str:
    """The name of the journal file that begins with this LSN."""
    return f"{first_lsn:016x}.mj"


def parse_file_name(name: str) -> Lsn | None:
    """The first LSN of a journal file by its name; None for any other name."""
    match = FILE_NAME.fullmatch(name)
    first_lsn = Lsn(int(match[1], 16)) if match else NO_LSN
    return first_lsn or None
