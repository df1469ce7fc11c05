"""Reads a store piece by piece in several threads, skipping what is a hole on both sides.

A piece is a run of at most 1 MiB of pages, read with one call that releases the GIL, into a buffer that is made once.
Two threads keep one of them reading while the other computes sums.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator

from mirrortool.checksum import page_sums
from mirrortool.store.interface import PageReader
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import Volume

PIECE_BYTES = 1 << 20
THREADS = 2
"""Where a store does not say by `readers` how many it is read best by: that waits for a device or a server."""

Run = tuple[int, int]


class PieceReader:
    """A buffer for one piece, owned by one thread.

    Attributes:
        views: the pages of the buffer.
    """

    def __init__(self, store: PageReader, page_size: int) -> None:
        self._store = store
        self._page_size = page_size
        self.buffer = memoryview(bytearray(PIECE_BYTES))
        self.views = [self.buffer[i : i + page_size] for i in range(0, PIECE_BYTES, page_size)]

    def read(self, page: int, count: int) -> None:
        """Fill the buffer with these pages; what is after a volume's end reads as zeros."""
        self._store.read_into(page, [self.buffer[: count * self._page_size]])

    def sums(self, count: int) -> bytes:
        """Packed sums of the first pages in the buffer."""
        return page_sums(self.views[:count], self._page_size)


Work = Callable[[PieceReader, int, int], None]


def pieces(store: PageReader, sums: PageSums, volume: Volume, *, skip: int = 0) -> Iterator[Run]:
    """What may differ between a volume and its sums: (first page, count), ascending, a piece each.

    Args:
        skip: pages at the volume's start that are left out.
    """
    first = sums.volumes.first_page(volume) + skip
    count = sums.volumes.page_count(volume) - skip
    if count <= 0:
        return
    step = PIECE_BYTES // sums.page_size
    both = heapq.merge(store.data_runs(first, count), sums.nonzero_runs(first, count))
    for start, end in _union(both):
        for page in range(start, end, step):
            yield page, min(step, end - page)


def readers_of(store: PageReader) -> int:
    """How many threads that read at once a store is read best by."""
    return int(getattr(store, "readers", THREADS))


def for_each_piece(
    store: PageReader, page_size: int, work_list: Iterable[Run], work: Work, threads: int | None = None
) -> None:
    """Call `work(reader, page, count)` for each piece, in several threads; the buffer is filled by then.

    The pieces are handed out in order. The first error stops the rest and is raised here.
    """
    todo = iter(work_list)
    lock = threading.Lock()  # protects `todo` and `failed`; held for one step of the iterator
    failed: list[BaseException] = []

    def take() -> Run | None:
        with lock:
            return None if failed else next(todo, None)

    def run() -> None:
        try:
            reader = PieceReader(store, page_size)
            while (piece := take()) is not None:
                reader.read(*piece)
                work(reader, *piece)
        except BaseException as error:  # handed to the caller, whatever it is
            with lock:
                failed.append(error)

    others = [threading.Thread(target=run, daemon=True) for _ in range((threads or readers_of(store)) - 1)]
    for thread in others:
        thread.start()
    run()
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]


def _union(runs: Iterable[Run]) -> Iterator[Run]:
    """Ascending runs (first, count), which may overlap, as disjoint ones (first, one past the last)."""
    begun: Run | None = None
    for first, count in runs:
        if begun and first <= begun[1]:
            begun = begun[0], max(begun[1], first + count)
            continue
        if begun:
            yield begun
        begun = first, first + count
    if begun:
        yield begun
