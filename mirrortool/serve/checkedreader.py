"""Reads pages, and compares each with the sum that it must have: what was changed or has rotted is shown to nobody."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence

from mirrortool.checksum import SUM_BYTES, page_sums
from mirrortool.errors import MirrortoolError
from mirrortool.store.interface import PageReader
from mirrortool.store.pageruns import joined
from mirrortool.volume import VolumeSet

ReadSums = Callable[[int, int], bytes]
"""Packed sums that pages of one volume, the first and how many, must have."""


class CheckedReader:
    """A PageReader over another, whose pages all have the sums that they must have."""

    def __init__(
        self,
        reader: PageReader,
        read_sums: ReadSums,
        wrong: Callable[[str, int], MirrortoolError],
        nonzero_runs: Callable[[int, int], Iterable[tuple[int, int]]],
    ) -> None:
        """Take over the reader, which is closed with this.

        Args:
            wrong: the error for a page, by its volume and its number there, that does not have its sum.
            nonzero_runs: runs of pages that may have other sums than 0, ascending.
        """
        self.page_size = reader.page_size
        self._reader, self._read_sums, self._wrong, self._nonzero_runs = reader, read_sums, wrong, nonzero_runs

    @property
    def volumes(self) -> VolumeSet:
        return self._reader.volumes

    def read_into(self, page: int, buffers: Sequence[memoryview]) -> None:
        """Fill buffers of whole pages of one volume.

        Raises:
            MirrortoolError: one does not have the sum that it must have, or cannot be read.
        """
        self._reader.read_into(page, buffers)
        size = self.page_size
        pages = [each[at : at + size] for each in buffers for at in range(0, len(each), size)]
        found = page_sums(pages, size)
        known = self._read_sums(page, len(pages))
        if found != known:
            raise self._error(page, found, known)

    def data_runs(self, page: int, count: int) -> Iterator[tuple[int, int]]:
        """Those of the reader, and those with sums: what has a sum and became a hole must be found, too."""
        if count:
            yield from joined(heapq.merge(self._reader.data_runs(page, count), self._nonzero_runs(page, count)))

    def close(self) -> None:
        self._reader.close()

    def _error(self, page: int, found: bytes, known: bytes) -> MirrortoolError:
        """For the first page that differs."""
        place = next(
            at for at in range(0, len(found), SUM_BYTES) if found[at : at + SUM_BYTES] != known[at : at + SUM_BYTES]
        )
        volume = self.volumes.find(page)
        assert volume is not None, "it was read"
        return self._wrong(volume.name, page + place // SUM_BYTES - self.volumes.first_page(volume))
