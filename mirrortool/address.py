"""The address space: 2^62 bytes in pages and segments (FIG. 7 of the patent).

An address is a byte in this space, an offset a byte in a file. Everything that the journal, the sums and the
replay count is a page: `address // page_size`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

ADDRESS_BITS = 62
ADDRESS_LIMIT = 1 << ADDRESS_BITS
"""One past the last address, 3FFFFFFFFFFFFFFFh."""

SEGMENT_BYTES = 1 << 24
"""The low three bytes of an address are its offset in a segment."""

VOLUME_ALIGNMENT = 1 << 48
"""Volumes start at multiples of this."""

PAGE_SIZE_MIN = 512
PAGE_SIZE_MAX = 65536
PAGE_SIZE_DEFAULT = 4096


def format_address(address: int) -> str:
    """An address as people and `init` read it: 0x and its 16 digits."""
    return f"{address:#018x}"


def is_page_size(size: int) -> bool:
    """Whether a journal can have pages of this many bytes."""
    return PAGE_SIZE_MIN <= size <= PAGE_SIZE_MAX and size & (size - 1) == 0


def pages_in(size: int, page_size: int) -> int:
    """The number of pages that hold `size` bytes; the last one may be partial."""
    return -(-size // page_size)


def pages_per_segment(page_size: int) -> int:
    """Whole pages in a segment."""
    return SEGMENT_BYTES // page_size


def split_at(first: int, count: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut the pages `first … first+count-1` at multiples of `step`: pairs of first page and count."""
    end = first + count
    while first < end:
        cut = min(end, first - first % step + step)
        yield first, cut - first
        first = cut


def adjacent_runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Runs of adjacent numbers among ascending ones, none below 0: pairs of the first and how many."""
    first = end = 0
    for number in numbers:
        if number != end:
            if end > first:
                yield first, end - first
            first = number
        end = number + 1
    if end > first:
        yield first, end - first
