"""What a main queue holds: an atomic list of writes with its exact footprint.

Rule: the task groups see only the footprint; what a unit writes matters to nobody but the task that applies it.
Rule: exact sets of pages, not hulls. Hulls of scattered writes would be correct, but they serialise units that share
no page.
Bound: a scattered footprint is a bit mask, so it spans at most SPAN_PAGES_MAX pages; a contiguous one has no bound.

Not here: how frames become units (delegator.py), and who applies them when (group.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mirrortool.checksum import Buffer

# A mask of so many bits is 8 KiB, and one `&` of two takes a few microseconds. Stripes span far less.
SPAN_PAGES_MAX = 65_536


class Footprint:
    """A set of pages that is not empty, immutable: one contiguous run, or a bit mask over the pages of a hull.

    Attributes:
        first: the lowest page.
        end: one above the highest page.
        mask: bit i stands for page first + i; None where every page of the hull belongs to the set.
    """

    __slots__ = ("end", "first", "mask")

    def __init__(self, first: int, end: int, mask: int | None = None) -> None:
        """The pages `first … end-1`, or of these only the ones in `mask`, which has its first and last bit set."""
        self.first = first
        self.end = end
        self.mask = mask

    @classmethod
    def of_runs(cls, runs: Sequence[tuple[int, int]]) -> Footprint:
        """The pages of runs (first page, count), which are ascending and do not overlap."""
        first, end = runs[0][0], runs[-1][0] + runs[-1][1]
        if sum(count for _, count in runs) == end - first:
            return cls(first, end)
        assert end - first <= SPAN_PAGES_MAX, "cut scattered writes at stripes before making units of them"
        mask = 0
        for start, count in runs:
            mask |= (1 << count) - 1 << start - first
        return cls(first, end, mask)

    def intersects(self, other: Footprint) -> bool:
        """Whether the two share a page. Hulls first, so that the common case costs two comparisons."""
        if self.end <= other.first or other.end <= self.first:
            return False
        if self.mask is None and other.mask is None:
            return True
        first, end = max(self.first, other.first), min(self.end, other.end)
        return self._bits(first, end) & other._bits(first, end) != 0

    def union(self, other: Footprint) -> Footprint | None:
        """Exactly the pages of both as one footprint, or None where that would take too wide a mask."""
        if self._covers_hull(other):
            return self
        if other._covers_hull(self):
            return other
        first, end = min(self.first, other.first), max(self.end, other.end)
        touching = self.first <= other.end and other.first <= self.end
        if touching and self.mask is None and other.mask is None:
            return Footprint(first, end)
        if end - first > SPAN_PAGES_MAX:
            return None
        return Footprint(first, end, self._bits_above(first) | other._bits_above(first))

    def pages(self) -> Iterator[int]:
        """Every page, ascending; for displays and tests."""
        bits = self._bits(self.first, self.end)
        return (page for page in range(self.first, self.end) if bits >> page - self.first & 1)

    def page_count(self) -> int:
        """How many pages there are."""
        return self.end - self.first if self.mask is None else self.mask.bit_count()

    def _covers_hull(self, other: Footprint) -> bool:
        return self.mask is None and self.first <= other.first and other.end <= self.end

    def _bits(self, first: int, end: int) -> int:
        """From page `first` of the hull on, with bit 0 for `first`; at least as far as `end`."""
        return (1 << end - first) - 1 if self.mask is None else self.mask >> first - self.first

    def _bits_above(self, first: int) -> int:
        """All pages, with bit 0 for `first`, a page at or below the hull's first."""
        return self._bits(self.first, self.end) << self.first - first

    def __repr__(self) -> str:
        kind = "run" if self.mask is None else f"{self.mask.bit_count()} pages"
        return f"<Footprint {self.first:#x}-{self.end:#x} {kind}>"


class PageSet:
    """A set of pages that grows: a list of footprints that stands for their exact union. Empty at first.

    Owner: whoever holds the lock of the group whose row shows it. Bound: footprints merge where that stays exact, so
    that the list is as long as the number of distant places, whatever the number of units.
    """

    __slots__ = ("end", "first", "footprints")

    def __init__(self, footprints: Sequence[Footprint] = ()) -> None:
        self.clear()
        for footprint in footprints:
            self.add(footprint)

    def __bool__(self) -> bool:
        return self.end != 0

    def clear(self) -> None:
        """No page at all. Its hull, 0 to 0, meets no other."""
        self.first = 0
        self.end = 0
        self.footprints: list[Footprint] = []

    def add(self, footprint: Footprint) -> None:
        """Take in the pages of a footprint."""
        if not self.footprints or (
            footprint.mask is None and footprint.first <= self.first and self.end <= footprint.end
        ):
            self.footprints = [footprint]
            self.first, self.end = footprint.first, footprint.end
            return
        self._merge_or_append(footprint)
        self.first = min(self.first, footprint.first)
        self.end = max(self.end, footprint.end)

    def update(self, other: PageSet) -> None:
        """Take in the pages of another set."""
        for footprint in other.footprints:
            self.add(footprint)

    def intersects(self, footprint: Footprint) -> bool:
        """Whether a footprint shares a page with any of these. Hull first."""
        if self.end <= footprint.first or footprint.end <= self.first:
            return False
        for each in self.footprints:  # noqa: SIM110 - a generator costs more than the comparison
            if each.intersects(footprint):
                return True
        return False

    def _merge_or_append(self, footprint: Footprint) -> None:
        # Only the newest is tried: neighbours arrive one after another, and a search would make long lists quadratic.
        merged = self.footprints[-1].union(footprint)
        if merged is None:
            self.footprints.append(footprint)
        else:
            self.footprints[-1] = merged


@dataclass(slots=True, eq=False)
class Unit:
    """An atomic list of writes; applied whole by one task, or not at all.

    Attributes:
        sequence: the number of the unit in arrival order, over all groups.
        footprint: exactly the pages that it touches; at least one.
        runs: (first page, buffers of whole pages), ascending and disjoint: one pwritev each.
        zeros: (first page, count) to make read as zeros, disjoint from `runs`.
        payload_bytes: of all runs, for the credits; does not change once the unit is submitted.
        lsn: the last LSN whose pages it carries, for traces.
        given_back: how often a task put it back on the main queue. Owner: the group's lock.
    """

    sequence: int
    footprint: Footprint
    runs: list[tuple[int, list[Buffer]]] = field(default_factory=list)
    zeros: list[tuple[int, int]] = field(default_factory=list)
    payload_bytes: int = 0
    lsn: int = 0
    given_back: int = 0
