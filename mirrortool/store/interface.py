"""What replay, verify and repair need of a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from mirrortool.files import Buffer
from mirrortool.volume import VolumeSet

WriteRun = tuple[int, Sequence[Buffer], int]
"""First page, buffers of whole pages, and their length in bytes together."""


class PageWriter(Protocol):
    """What the tasks of a replay need of a store: a place for pages."""

    @property
    def volumes(self) -> VolumeSet:
        """The volumes with their sizes as of now."""

    def write(self, runs: Sequence[WriteRun]) -> None:
        """Write runs of whole pages, ascending, all of them inside one volume."""

    def zero(self, page: int, count: int) -> None:
        """Make pages read as zeros and give their space back."""

    def resize(self, name: str, size: int) -> None:
        """Give a volume a new size in bytes.

        From the page that holds a smaller end on, and after the old end of a larger one, it reads as zeros.
        """


class PageReader(Protocol):
    """Pages by address, to be read: of a store, or of a journal at one commit.

    `read_into` and `data_runs` may be called from several threads at once. Errors are MirrortoolErrors.
    """

    @property
    def volumes(self) -> VolumeSet:
        """The volumes with their sizes."""

    @property
    def page_size(self) -> int:
        """Bytes."""

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        """Fill buffers of whole pages, all of one volume; what is after the end of the volume reads as zeros."""

    def data_runs(self, page: int, count: int) -> Iterable[tuple[int, int]]:
        """Runs (first page, count), ascending, among these pages that may hold something else than zeros."""

    def close(self) -> None:
        """Give files and locks back."""


class Store(PageWriter, PageReader, Protocol):
    """Pages by address: mirrored storage (126, 540).

    Every method may be called from several threads at once for different pages; `resize` and `zero` of more than a
    unit only while nothing else runs. Errors are HostErrors with the path. A write past a volume's last byte is cut
    there: only the last page of a volume can be partial.
    """

    def capacity(self, name: str) -> int | None:
        """How large a volume can become, in bytes; None where only the file system limits it."""

    def find_why_not_direct(self) -> str | None:
        """Why the volumes cannot be written past the page cache; None if they can."""

    def write_direct(self, wanted: bool) -> None:
        """Write past the page cache from now on, or no longer; while nothing is being written.

        Raises:
            UnusableVolumeError: they cannot be written so.
        """

    def read_bytes(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with a volume's bytes from `offset` on, all of them inside the volume."""

    def reserve(self, runs: Iterable[tuple[int, int]], bytes_most: int) -> None:
        """Make sure that writes to these runs, `bytes_most` at most, find space.

        Raises:
            NoSpaceError: they do not; every byte is unchanged.
        """

    def sync(self) -> None:
        """Make every write durable."""

    def drop_caches(self) -> None:
        """Let the next reads come from the device."""
