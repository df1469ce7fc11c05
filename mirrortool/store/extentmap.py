"""Which place each extent has: the map of a store over several backings, in memory.

It is built from the tables of the backings at each opening, and written nowhere: those are the one truth.

Bound: in proportion to the extents that have a place, wherever they lie: chunks of 64 numbers, a chunk only where an
extent is.
Rule: `get` and `each` may be called while another thread changes it; a change itself is its owner's, under a lock.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

_CHUNK_BITS = 6
_CHUNK = 1 << _CHUNK_BITS
_MASK = _CHUNK - 1
_EMPTY = array("Q", bytes(8 * _CHUNK))

NO_PLACE = 0


class ExtentMap:
    """A number, not 0, for each of some extents. An extent is named by its address in units of extents."""

    def __init__(self) -> None:
        self._chunks: dict[int, array[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, extent: int) -> int:
        """The number of an extent; NO_PLACE if it has none."""
        chunk = self._chunks.get(extent >> _CHUNK_BITS)
        return chunk[extent & _MASK] if chunk is not None else NO_PLACE

    def put(self, extent: int, place: int) -> None:
        """Give an extent a number, in place of the one that it has."""
        chunk = self._chunks.get(extent >> _CHUNK_BITS)
        if chunk is None:
            chunk = self._chunks[extent >> _CHUNK_BITS] = _EMPTY[:]
        self._count += chunk[extent & _MASK] == NO_PLACE
        chunk[extent & _MASK] = place

    def remove(self, extent: int) -> None:
        """Take the number of an extent, which has one."""
        chunk = self._chunks[extent >> _CHUNK_BITS]
        assert chunk[extent & _MASK] != NO_PLACE
        chunk[extent & _MASK] = NO_PLACE
        self._count -= 1
        if chunk == _EMPTY:
            del self._chunks[extent >> _CHUNK_BITS]

    def each(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The extents from `first` to before `end` that have numbers, ascending, with these."""
        low, high = first >> _CHUNK_BITS, -(-end >> _CHUNK_BITS)
        wanted = range(low, high)
        if len(self._chunks) < len(wanted):
            wanted = sorted(number for number in list(self._chunks) if low <= number < high)  # type: ignore[assignment]
        for number in wanted:
            chunk = self._chunks.get(number)
            if chunk is None:
                continue
            start = number << _CHUNK_BITS
            for extent in range(max(first, start), min(end, start + _CHUNK)):
                if place := chunk[extent & _MASK]:
                    yield extent, place
