"""Write-back: keeps pages in memory that are acknowledged and not on the volumes yet, and writes them there.

    current     changed since the newest write-back was begun; perhaps not durable
    going       durable in the journal, and on the way to the volumes

Rule (no-steal): a page reaches its volume only after the frame that brought it is durable. So a volume never holds a
byte that the journal could lose, and recovery needs to redo, never to undo.
Rule: a reader first gets both generations, then reads the volume, then lays them over it. A page that is in neither by
then was on the volume already.
Bound: the recorder lets writers wait above WAITING_BYTES_MAX.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

from mirrortool.address import adjacent_runs
from mirrortool.files import Buffer
from mirrortool.store.interface import PageWriter, WriteRun
from mirrortool.volume import VolumeSet

WAITING_BYTES_MAX = 128 << 20
WRITE_BACK_BYTES = 64 << 20
"""When this much waits, a write-back begins at once."""
_SLICE_BYTES = 4 << 20
_SLICE_RUNS = 256

Generation = dict[int, Buffer]
"""Content by page. A page that became zero has `Waiting.hole`, that very object."""


class Waiting:
    """The pages that wait, in two generations.

    Everything but `generations` is used under the recorder's lock.

    Attributes:
        generations: (current, going), replaced together, so that a reader without the lock sees one moment.
        hole: stands for a page of zeros whose space is to be freed.
    """

    def __init__(self, page_size: int) -> None:
        self.hole = bytes(page_size)
        self.generations: tuple[Generation, Generation] = ({}, {})
        self._bytes_current = 0
        self._bytes_going = 0

    @property
    def bytes_waiting(self) -> int:
        """Memory that is held, for both generations."""
        return self._bytes_current + self._bytes_going

    @property
    def is_due(self) -> bool:
        """Whether enough waits for a write-back to begin at once."""
        return self._bytes_current >= WRITE_BACK_BYTES

    def add(self, pages: Mapping[int, Buffer], length: int) -> None:
        """Add pages that were journaled; `length` bytes of memory are held for them."""
        self.generations[0].update(pages)
        self._bytes_current += length

    def begin(self) -> None:
        """Everything that waits is on its way from now on; what was on its way before has arrived."""
        current, going = self.generations
        assert not going
        self.generations = {}, current
        self._bytes_current, self._bytes_going = 0, self._bytes_current

    def finish(self) -> None:
        """What was on its way has arrived."""
        self.generations = self.generations[0], {}
        self._bytes_going = 0


def write_pages(store: PageWriter, pages: Generation, hole: Buffer, pause: Callable[[], None]) -> None:
    """Write a generation to the volumes, sorted and merged; `pause` is called before each slice and each hole.

    Raises:
        HostError: call it again with the same pages.
    """
    pause()
    runs: list[WriteRun] = []
    length = 0
    for page, count in adjacent_runs(sorted(page for page, data in pages.items() if data is not hole)):
        is_full = length >= _SLICE_BYTES or len(runs) >= _SLICE_RUNS
        if runs and (is_full or not _are_together(store.volumes, runs[0][0], page)):
            store.write(runs)
            runs, length = [], 0
            pause()
        buffers = [pages[number] for number in range(page, page + count)]
        size = sum(map(len, buffers))
        runs.append((page, buffers, size))
        length += size
    if runs:
        store.write(runs)
    for page, count in adjacent_runs(sorted(page for page, data in pages.items() if data is hole)):
        pause()
        store.zero(page, count)


def _are_together(volumes: VolumeSet, page: int, other: int) -> bool:
    """Whether two pages, the first the lower, lie in one volume."""
    return volumes.find(page, other - page + 1) is not None


def waiting_pages(generations: Iterable[Generation], page: int, count: int) -> list[int]:
    """The pages among these that wait, ascending."""
    found: set[int] = set()
    for generation in generations:
        # list() is one step of the interpreter: writers may add meanwhile.
        if len(generation) < count:
            found.update(number for number in list(generation) if page <= number < page + count)
        else:
            found.update(number for number in range(page, page + count) if number in generation)
    return sorted(found)


def overlaid(
    runs: Iterable[tuple[int, int]], waiting: Iterable[tuple[int, bool]], first: int, end: int
) -> Iterator[tuple[int, int, bool]]:
    """Runs from page `first` to `end`: (first page, the page after the last, whether it is a hole), ascending.

    Args:
        runs: (first page, count) that have data on the volume, ascending.
        waiting: (page, whether it became a hole), ascending; these count, not the volume.
    """
    on_volume = itertools.chain(runs, [(end, 1)])
    start, count = next(on_volume)
    place = first
    for page, is_hole in [*waiting, (end, True)]:
        while place < page:
            if start + count <= place:
                start, count = next(on_volume)
                continue
            stop = min(page, start if place < start else start + count)
            yield place, stop, place < start
            place = stop
        if page < end:
            yield page, page + 1, is_hole
            place = page + 1
