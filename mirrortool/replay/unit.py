"""What a main queue holds: an atomic list of writes with its exact footprint.

The task groups see only the footprint; what a unit writes matters to nobody but the task that applies it. Exact sets of
pages, not hulls: hulls of scattered writes would serialise units that share no page (ALGORITHM: 3287 independent pairs
could never run together).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mirrortool.checksum import Buffer


class Footprint:
    """A set of pages, immutable. One contiguous run, or a frozen set of pages.

    Rule: `intersects` compares hulls first, so that the common case costs two comparisons.
    """

    __slots__ = ("end", "first", "pages")

    def __init__(self, first: int, end: int, pages: frozenset[int] | None = None) -> None:
        """The pages `first … end-1`, or of these only `pages`."""
        self.first = first
        self.end = end
        self.pages = pages

    @classmethod
    def of_runs(cls, runs: Sequence[tuple[int, int]]) -> Footprint:
        """The pages of runs (first page, count), which are ascending and do not overlap."""
        first, end = runs[0][0], runs[-1][0] + runs[-1][1]
        if sum(count for _, count in runs) == end - first:
            return cls(first, end)
        return cls(first, end, frozenset(page for start, count in runs for page in range(start, start + count)))

    def intersects(self, other: Footprint) -> bool:
        """Whether the two share a page."""
        if self.end <= other.first or other.end <= self.first:
            return False
        if self.pages is None and other.pages is None:
            return True
        if self.pages is None:
            return other._has_any(self.first, self.end)
        if other.pages is None:
            return self._has_any(other.first, other.end)
        return not self.pages.isdisjoint(other.pages)

    def _has_any(self, first: int, end: int) -> bool:
        assert self.pages is not None
        if end - first < len(self.pages):
            return any(page in self.pages for page in range(first, end))
        return any(first <= page < end for page in self.pages)

    def __repr__(self) -> str:
        kind = "run" if self.pages is None else f"{len(self.pages)} pages"
        return f"<Footprint {self.first:#x}-{self.end:#x} {kind}>"


def intersects_any(footprints: Iterable[Footprint], footprint: Footprint) -> bool:
    """Whether a list of footprints, which stands for their union, shares a page with another."""
    return any(footprint.intersects(each) for each in footprints)


@dataclass(slots=True, eq=False)
class Unit:
    """An atomic list of writes; applied whole by one task, or not at all.

    Attributes:
        sequence: the number of the unit in arrival order, over all groups.
        footprint: exactly the pages that it touches.
        runs: (first page, buffers of whole pages), ascending and disjoint: one pwritev each.
        zeros: (first page, count) to make read as zeros, disjoint from `runs`.
        payload_bytes: of all runs, for the credits.
        lsn: the last LSN whose pages it carries, for traces.
    """

    sequence: int
    footprint: Footprint
    runs: list[tuple[int, list[Buffer]]] = field(default_factory=list)
    zeros: list[tuple[int, int]] = field(default_factory=list)
    payload_bytes: int = 0
    lsn: int = 0
