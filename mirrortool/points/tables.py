"""Tables of frames, and sums, that an open view needs: in a temporary file, as they grow with the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mirrortool import files
from mirrortool.checksum import SUM_BYTES
from mirrortool.files import File
from mirrortool.points.cache import Cache
from mirrortool.points.indexpart import TABLE_ROW_BYTES, FrameTable, IndexPart, decode_table, encode_table

_CACHED_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class TablePlace:
    """Where a table is kept.

    Attributes:
        frames, pages: how many it has, and how many sums.
    """

    offset: int
    frames: int
    pages: int


@dataclass(frozen=True, slots=True)
class Table:
    """The frames of a part of an index, and the packed sums of its pages."""

    frames: FrameTable
    sums: bytes


class TableStore:
    """Keeps tables. `put` belongs to one thread, `get` to any."""

    def __init__(self, directory: Callable[[], str]) -> None:
        """
        Args:
            directory: makes, at the first call, the one for temporary files.
        """
        self._directory = directory
        self._file: File | None = None
        self._size = 0
        self._cached: Cache[Table] = Cache(_CACHED_BYTES)

    def close(self) -> None:
        if self._file:
            self._file.close()

    def put(self, part: IndexPart) -> TablePlace:
        """Keep the table of a part."""
        if self._file is None:
            self._file = files.make_file(files.join(self._directory(), "frames"))
        place = TablePlace(self._size, len(part.frames), part.page_count)
        data = encode_table(part.frames)
        self._file.pwritev([data, part.sums], self._size)
        self._size += len(data) + len(part.sums)
        return place

    def get(self, place: TablePlace) -> Table:
        return self._cached.get(place, lambda: self._load(place))

    def _load(self, place: TablePlace) -> tuple[Table, int]:
        assert self._file is not None
        length = place.frames * TABLE_ROW_BYTES + place.pages * SUM_BYTES
        data = self._file.pread(length, place.offset)
        frames, used = decode_table(memoryview(data), place.frames)
        return Table(frames, data[used:]), length
