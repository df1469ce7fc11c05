"""Page sums and state sums, both of xxh3-64.

The sum of a page is its xxh3-64 XOR the xxh3-64 of a zero page of that size. So the sum of a zero page is 0, and a
hole in a table of sums *is* a run of zero pages. Sums are stored big-endian, the digest's own order, so that a run
of digests is joined without converting any.

The state sum of a volume is the XOR of one term for each page that is not zero, and of one for its name and size. It
does not depend on the order in which pages were written, and a change costs two terms.

xxh3 is not a cryptographic hash: sums find rot, lost and misplaced writes, not forgery.
"""

from __future__ import annotations

import functools
import itertools
import operator
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence

import xxhash

from mirrortool.address import PAGE_SIZE_MAX
from mirrortool.files import Buffer as Buffer

SUM_BYTES = 8

_ZEROS = memoryview(bytes(PAGE_SIZE_MAX))


@functools.cache
def _zero_digest(page_size: int) -> bytes:
    return xxhash.xxh3_64_digest(_ZEROS[:page_size])


@functools.lru_cache(maxsize=1024)
def _zero_pattern(page_size: int, count: int) -> int:
    return int.from_bytes(_zero_digest(page_size) * count, "big")


def page_sums(pages: Sequence[Buffer], page_size: int) -> bytes:
    """Sums of whole pages, 8 bytes each, big-endian, in order.

    Args:
        pages: buffers of exactly `page_size` bytes each.
    """
    count = len(pages)
    joined = b"".join(map(xxhash.xxh3_64_digest, pages))
    folded = int.from_bytes(joined, "big") ^ _zero_pattern(page_size, count)
    return folded.to_bytes(count * SUM_BYTES, "big")


def unpack_sums(packed: Buffer) -> array[int]:
    """The sums in `packed` as integers."""
    sums = array("Q", bytes(packed))
    if sys.byteorder == "little":
        sums.byteswap()
    return sums


def pack_sums(sums: Iterable[int]) -> bytes:
    """Sums as they are stored, 8 bytes each, big-endian."""
    packed = array("Q", sums)
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()


def state_term(pages: Sequence[int], sums: Sequence[int]) -> int:
    """The XOR of the terms of all pages with a sum that is not zero.

    A term is the xxh3-64 of the page sum as stored, seeded with the page number. Pages with the sum 0 have none.
    """
    if len(sums) == 1:
        return xxhash.xxh3_64_intdigest(sums[0].to_bytes(SUM_BYTES, "big"), pages[0]) if sums[0] else 0
    if 0 in sums:
        pages, sums = list(itertools.compress(pages, sums)), list(itertools.compress(sums, sums))
    digests = map(xxhash.xxh3_64_intdigest, _eights(pack_sums(sums)), pages)
    return functools.reduce(operator.xor, digests, 0)


def volume_term(name: str, size: int) -> int:
    """The term of a volume's name and size in bytes."""
    return xxhash.xxh3_64_intdigest(struct.pack("<Q", size) + name.encode())


def _eights(packed: bytes) -> tuple[bytes, ...]:
    """Cut into eights; struct does it three times as fast as slicing."""
    return struct.unpack("8s" * (len(packed) // SUM_BYTES), packed)
