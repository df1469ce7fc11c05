"""A state of volumes in memory, read as a store or a past commit is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mirrortool.address import adjacent_runs
from mirrortool.volume import VolumeSet


class PagesInMemory:
    """Attributes:
    content: of each volume by name, as long as it is.
    reads: (first page, count) of each read, in order.
    error: raised by every read, if a test sets it.
    """

    def __init__(self, volumes: VolumeSet, content: dict[str, bytes]) -> None:
        self.volumes = volumes
        self.page_size = volumes.page_size
        self.content = content
        self.reads: list[tuple[int, int]] = []
        self.error: Exception | None = None
        self.is_closed = False

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        count = sum(map(len, buffers)) // self.page_size
        self.reads.append((page, count))
        if self.error:
            raise self.error
        data, first = self._pages(page, count)
        found = data[first * self.page_size : (first + count) * self.page_size]
        for buffer in buffers:
            buffer[:], found = found[: len(buffer)], found[len(buffer) :]

    def data_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        data, first = self._pages(page, count)
        size = self.page_size
        places = [at for at in range(first, first + count) if any(data[at * size : (at + 1) * size])]
        yield from ((page - first + at, number) for at, number in adjacent_runs(places))

    def close(self) -> None:
        self.is_closed = True

    def _pages(self, page: int, count: int) -> tuple[bytes, int]:
        """The whole pages of the volume that has these, and which of them is the first."""
        volume = self.volumes.find(page, count)
        assert volume is not None, "inside one volume"
        length = self.volumes.page_count(volume) * self.page_size
        return self.content[volume.name].ljust(length, b"\0"), page - self.volumes.first_page(volume)
