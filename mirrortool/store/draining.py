"""Moves all extents of a backing to the others, in proportion to their room, while nothing else uses the store.

Order, for some extents at a time: copy; sync; read back; the record of the new cell, with a higher sequence; sync; then
the old cell is zeroed, synced, and free. A crash leaves an extent in its old cell, or in both, of which the newer one
counts; the next opening zeroes the other. So what was interrupted is just begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import xxhash

from mirrortool.errors import InputOutputError
from mirrortool.store.allocation import Allocation, number_and_cell
from mirrortool.store.backing import Backing
from mirrortool.store.backingset import BackingSet

BATCH_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20
_ZEROS = bytes(_PIECE_BYTES)


class Draining:
    """The extents of one backing, on their way to the others."""

    def __init__(self, backings: BackingSet, allocation: Allocation, sync: Callable[[], None], number: int) -> None:
        """
        Args:
            sync: that of the store.
            number: of the backing, from which nothing is taken any more.
        """
        self._backings, self._allocation, self._sync = backings, allocation, sync
        allocation.close_room(number)
        self._extents = allocation.extents_on(number)

    @property
    def left(self) -> int:
        """Extents that are still there."""
        return len(self._extents)

    def run(self, is_cancelled: Callable[[], bool]) -> None:
        """Move them, until there is none left, or it is cancelled.

        Raises:
            NoSpaceError: the others are full; what was moved stays there.
            InputOutputError: a copy does not read back as it was written.
        """
        batch = max(1, BATCH_BYTES // self._backings.extent_bytes)
        while self._extents and not is_cancelled():
            part = self._extents[-batch:]
            self._move(part)
            del self._extents[-batch:]

    def _move(self, extents: Sequence[int]) -> None:
        old = [self._allocation.places.get(extent) for extent in extents]
        new = self._allocation.take_other_cells(extents)
        sums = [self._copy(*pair) for pair in zip(old, new, strict=True)]
        self._backings.sync()
        self._backings.drop_caches()
        for place, known in zip(new, sums, strict=True):
            self._check(place, known)
        self._allocation.move(extents, new)
        self._sync()
        self._allocation.free_cells(old)

    def _copy(self, old: int, new: int) -> int:
        """Copy a cell, but for its holes; returns a sum of what was copied."""
        source, source_offset = self._at(old)
        target, target_offset = self._at(new)
        digest = xxhash.xxh3_64()
        for start, data in _pieces(source, source_offset, self._backings.extent_bytes):
            digest.update(data)
            if data != _ZEROS[: len(data)]:
                target.file.pwrite(data, target_offset + start)
        return digest.intdigest()

    def _check(self, place: int, known: int) -> None:
        backing, offset = self._at(place)
        digest = xxhash.xxh3_64()
        for _, data in _pieces(backing, offset, self._backings.extent_bytes):
            digest.update(data)
        if digest.intdigest() != known:
            raise InputOutputError(
                "an extent that was copied does not read back as it was written",
                where=backing.path,
                remedy="the device loses writes: what it should have got is still where it was",
            )

    def _at(self, place: int) -> tuple[Backing, int]:
        number, cell = number_and_cell(place)
        return self._backings[number], self._backings[number].offset_of(cell)


def _pieces(backing: Backing, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
    """A cell in pieces, each with its offset there; holes are read as zeros."""
    for start in range(0, length, _PIECE_BYTES):
        wanted = min(_PIECE_BYTES, length - start)
        yield start, backing.file.pread(wanted, offset + start).ljust(wanted, b"\0")
