"""What a main queue holds: an atomic list of writes with its exact footprint.

Rule: the task groups see only the footprint; what a unit writes matters only to the task that applies it.
Rule: exact sets of pages, not hulls. Hulls of scattered writes would be correct, but they serialise units that share
no page.
Bound: a contiguous footprint is two numbers, whatever its length; a scattered one holds each of its pages.

Not here: how frames become units (coalesce.py), and which task applies them when (taskgroup.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain

from mirrortool.address import adjacent_runs
from mirrortool.lsn import NO_LSN, Lsn
from mirrortool.store.interface import WriteRun
from mirrortool.wording import counted

UNIT_COST_BYTES = 8192
"""What a unit costs beside its payload.

Not its memory: it bounds how many units are in flight. A unit that stands in the way of all others has its task give
them back, time and again, so that this work grows with the square of their number.
"""

RUN_COST_BYTES = 256
"""What a run, or a stretch of zeros, costs beside its payload: its entry, its buffer and its pages in the footprint."""


class Footprint:
    """A set of pages that is not empty, immutable: one contiguous run, or a frozen set of pages.

    Attributes:
        first: the lowest page.
        end: one above the highest page.
        pages: None where every page from `first` to `end` belongs to the set.
    """

    __slots__ = ("end", "first", "pages")

    def __init__(self, first: int, end: int, pages: frozenset[int] | None = None) -> None:
        """The pages `first … end-1`, or of these only `pages`, which has the first and the last of them."""
        self.first = first
        self.end = end
        self.pages = pages

    @classmethod
    def of_runs(cls, runs: Sequence[tuple[int, int]]) -> Footprint:
        """The pages of runs (first page, count), which are ascending and do not overlap."""
        first, end = runs[0][0], runs[-1][0] + runs[-1][1]
        if sum(count for _, count in runs) == end - first:
            return cls(first, end)
        return cls(first, end, frozenset(chain.from_iterable(range(start, start + count) for start, count in runs)))

    def intersects(self, other: Footprint) -> bool:
        """Whether the two share a page. Hulls first, so that the common case costs two comparisons."""
        if self.end <= other.first or other.end <= self.first:
            return False
        if self.pages is None:
            return other.pages is None or _has_any(other.pages, self.first, self.end)
        return self.meets(other.pages) if other.pages else _has_any(self.pages, other.first, other.end)

    def meets(self, pages: Set[int]) -> bool:
        """Whether any of `pages` belongs to the footprint."""
        return _has_any(pages, self.first, self.end) if self.pages is None else not self.pages.isdisjoint(pages)

    def each_page(self) -> Iterable[int]:
        """Every page, ascending; for displays and tests."""
        return range(self.first, self.end) if self.pages is None else sorted(self.pages)

    def runs(self) -> tuple[tuple[int, int], ...]:
        """The same pages as runs (first page, count), ascending, with gaps between them."""
        if self.pages is None:
            return ((self.first, self.end - self.first),)
        return tuple(adjacent_runs(sorted(self.pages)))

    def page_count(self) -> int:
        """How many pages there are."""
        return self.end - self.first if self.pages is None else len(self.pages)

    def __repr__(self) -> str:
        kind = "run" if self.pages is None else counted(len(self.pages), "page")
        return f"<Footprint {self.first:#x}-{self.end:#x} {kind}>"


class PageSet:
    """A set of pages that grows by whole footprints. Empty at first.

    Owner: the thread that holds the lock of the group in which a row shows it.
    Bound: scattered pages share one set, and a run merges with the one before where they touch; so only the list
    of distant runs can become long.
    """

    __slots__ = ("_pages", "_runs", "end", "first")

    def __init__(self, footprints: Iterable[Footprint] = ()) -> None:
        self.clear()
        for footprint in footprints:
            self.add(footprint)

    def __bool__(self) -> bool:
        return self.end != 0

    def clear(self) -> None:
        """No page at all. Its hull, 0 to 0, meets no other."""
        self.first = 0
        self.end = 0
        self._runs: list[tuple[int, int]] = []  # (first page, one above the last)
        self._pages: set[int] | None = None  # of scattered footprints

    def add(self, footprint: Footprint) -> None:
        """Add the pages of a footprint."""
        first, end = footprint.first, footprint.end
        if footprint.pages is not None:
            self._add_scattered(footprint.pages)
        elif first <= self.first and self.end <= end:  # covers everything before it
            self._runs, self._pages = [(first, end)], None
        else:
            self._add_run(first, end)
        self.first = min(self.first, first) if self.end else first
        self.end = max(self.end, end)

    def update(self, other: PageSet) -> None:
        """Add the pages of another set, which is not empty."""
        for run in other._runs:
            self._add_run(*run)
        if other._pages is not None:
            self._add_scattered(other._pages)
        self.first = min(self.first, other.first) if self.end else other.first
        self.end = max(self.end, other.end)

    def intersects(self, footprint: Footprint) -> bool:
        """Whether a footprint shares a page with any of these. Hull first."""
        first, end = footprint.first, footprint.end
        if self.end <= first or end <= self.first:
            return False
        for start, stop in self._runs:
            if start < end and first < stop and (not footprint.pages or _has_any(footprint.pages, start, stop)):
                return True
        return self._pages is not None and footprint.meets(self._pages)

    def each_page(self) -> Iterable[int]:
        """Every page, ascending; for displays and tests."""
        return sorted(set(self._pages or ()).union(*(range(*run) for run in self._runs)))

    def _add_run(self, first: int, end: int) -> None:
        if self._runs:
            # Only the newest is tried: neighbours arrive one after another, and a search would be quadratic.
            start, stop = self._runs[-1]
            if first <= stop and start <= end:
                self._runs[-1] = min(start, first), max(stop, end)
                return
        self._runs.append((first, end))

    def _add_scattered(self, pages: Set[int]) -> None:
        if self._pages is None:
            self._pages = set()
        self._pages |= pages


def _has_any(pages: Set[int], first: int, end: int) -> bool:
    """Whether any of `pages` lies in `first … end-1`, in as many steps as the shorter of the two has pages."""
    if end - first < len(pages):
        return not pages.isdisjoint(range(first, end))
    return any(first <= page < end for page in pages)


class How(Enum):
    """How a unit came to the task that applied it; the values are those of a trace.

    Each has its step of FIG. 11: 1178, 1150, 1174.
    """

    DIRECT = "direct"
    MINI_QUEUE = "mini-queue"
    COUNTER_WAIT = "counter wait"


@dataclass(slots=True, eq=False)
class WriteUnit:
    """An atomic list of writes; applied whole by one task, or not at all.

    Attributes:
        sequence: the number of the unit in arrival order, over all groups.
        footprint: exactly the pages that it touches; at least one.
        runs: (first page, buffers of whole pages, their bytes), ascending and disjoint: one pwritev each.
        zeros: (first page, count) to make read as zeros, disjoint from `runs`.
        payload_bytes: of all runs.
        lsn: of its operation, where each is a unit; else the last LSN whose pages it may carry. For traces.
        cost: what it uses of the credits, in bytes.
        given_back: how often a task put it back on the main queue. This and what follows is for traces; owner: the
            group's lock, until a task has the unit in its work.
        how: the way that it took last.
        sent_by, sent_ns: of one from a mini queue, the task that sent it there, and when.
        is_handed_out: whether that task had it in its own mini queue before.
    """

    sequence: int
    footprint: Footprint
    runs: Sequence[WriteRun] = field(default_factory=list)
    zeros: Sequence[tuple[int, int]] = field(default_factory=list)
    payload_bytes: int = 0
    lsn: Lsn = NO_LSN
    cost: int = field(init=False)
    given_back: int = field(init=False, default=0)
    how: How = field(init=False, default=How.DIRECT)
    sent_by: int = field(init=False, default=0)
    sent_ns: int = field(init=False, default=0)
    is_handed_out: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        lists = len(self.runs) + len(self.zeros)
        self.cost = self.payload_bytes + UNIT_COST_BYTES + RUN_COST_BYTES * lists
