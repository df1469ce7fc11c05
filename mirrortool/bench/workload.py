"""The workload that the bench replays: writes of single pages, some of which conflict, and some of whole ranges.

Rule: the same arguments give the same workload, on every machine.
Rule: two writes conflict only where the workload says so: a page that was not chosen to conflict comes again only when
every other page has been written.
Bound: WRITES_MAX writes, and PAGE_BYTES for each of them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from mirrortool.lsn import Lsn
from mirrortool.replay.coalesce import INLINE_ZERO_BYTES, Pieces, Stretch
from mirrortool.replay.replayoptions import WINDOW_BYTES
from mirrortool.volume import VolumeSet, place

PAGE_BYTES = 512
"""The latency does not depend on it, and a small page uses the least memory."""

RANGE_PAGES = INLINE_ZERO_BYTES // PAGE_BYTES
"""A whole range is zeroed by one operation, the largest that a replay gives to a task."""

CONFLICT_DISTANCE = 32
"""A conflicting write has the page of one of this many single writes before it, which are likely still in flight."""

WRITES_MAX = 200_000
_SEED = 2002
_OPERATION_COST_BYTES = 64


@dataclass(frozen=True, slots=True)
class Mix:
    """What a workload is made of.

    Attributes:
        name: for people.
        conflict_share: of the single writes, how many conflict; 0 to 1.
        range_every: one of this many operations zeroes a whole range; 0 for none.
    """

    name: str
    conflict_share: float
    range_every: int


INDEPENDENT = Mix("independent writes", 0, 0)
CONFLICTS = Mix("10 % conflict", 0.1, 0)
RANGES = Mix("10 % conflict, and a whole range every 500", 0.1, 500)


@dataclass(frozen=True, slots=True)
class Write:
    """One operation: pages and their data, or None to zero them."""

    page: int
    count: int
    data: memoryview | None


@dataclass(frozen=True, slots=True)
class Workload:
    """Writes in the primary's order, to a volume of their own."""

    volumes: VolumeSet
    writes: tuple[Write, ...]

    @property
    def page_count(self) -> int:
        """Pages of the volume, which begins at page 0."""
        return sum(map(self.volumes.page_count, self.volumes))

    def stretches(self) -> Iterator[Stretch]:
        """The writes in windows as long as those of a replay, with LSNs from 1 on."""
        window = WINDOW_BYTES // (PAGE_BYTES + _OPERATION_COST_BYTES)
        for start in range(0, len(self.writes), window):
            writes = self.writes[start : start + window]
            pieces = Pieces([w.page for w in writes], [w.count for w in writes], [w.data for w in writes])
            yield Stretch(pieces, [(0, Lsn(start + 1))])

    def result(self) -> list[memoryview | None]:
        """What each page holds after all writes, one after another; None for zeros."""
        pages: list[memoryview | None] = [None] * self.page_count
        for write in self.writes:
            pages[write.page : write.page + write.count] = [write.data] * write.count
        return pages


def make_workload(mix: Mix, writes: int, ranges: int) -> Workload:
    """`writes` writes over a volume of `ranges` ranges of RANGE_PAGES pages."""
    source = random.Random(_SEED)
    volumes = place([("bench", ranges * RANGE_PAGES * PAGE_BYTES)], PAGE_BYTES)
    fresh = cycle(source.sample(range(ranges * RANGE_PAGES), ranges * RANGE_PAGES))
    turns = cycle(range(ranges))
    recent: deque[int] = deque(maxlen=CONFLICT_DISTANCE)
    made = []
    for number in range(1, writes + 1):
        if mix.range_every and number % mix.range_every == 0:
            made.append(Write(next(turns) * RANGE_PAGES, RANGE_PAGES, None))
            continue
        page = source.choice(recent) if recent and source.random() < mix.conflict_share else next(fresh)
        recent.append(page)
        made.append(Write(page, 1, memoryview(number.to_bytes(PAGE_BYTES, "big"))))
    return Workload(volumes, tuple(made))
