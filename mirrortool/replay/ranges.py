"""Divides the address space into ranges, one for each task group (FIG. 6, steps 610 and 620; FIG. 7).

space         equal parts of the whole 62 bits (FIG. 7); for volumes that were placed far apart
equal         equal parts of each volume
interleaved   stripes of one segment in turn, so that a sequential stream reaches every group
auto          interleaved
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mirrortool.address import ADDRESS_LIMIT, pages_per_segment
from mirrortool.volume import VolumeSet

RANGES = ("auto", "equal", "space", "interleaved")


class Ranges(Protocol):
    """Which group a page belongs to: the ranges of FIG. 7 (125, 940)."""

    def group_of(self, page: int) -> int:
        """The number of the group (820)."""

    def boundary_after(self, page: int) -> int:
        """The first page after `page` that may belong to another group."""


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Stripes of `stripe_pages` in turn."""

    groups: int
    stripe_pages: int

    def group_of(self, page: int) -> int:
        return page // self.stripe_pages % self.groups

    def boundary_after(self, page: int) -> int:
        return page - page % self.stripe_pages + self.stripe_pages


class Parts:
    """Consecutive parts; each begins at a page and belongs to a group."""

    def __init__(self, parts: Iterable[tuple[int, int]]) -> None:
        """Each (first page, group), ascending, the first at page 0."""
        self._parts = list(parts)
        self._starts = [start for start, _ in self._parts]
        assert self._starts[0] == 0

    def group_of(self, page: int) -> int:
        return self._parts[bisect.bisect_right(self._starts, page) - 1][1]

    def boundary_after(self, page: int) -> int:
        index = bisect.bisect_right(self._starts, page)
        return self._starts[index] if index < len(self._starts) else 1 << 62


def divide(kind: str, groups: int, volumes: VolumeSet) -> Ranges:
    """Ranges for this number of groups (step 610)."""
    if groups == 1:
        return Parts([(0, 0)])
    if kind == "space":
        step = ADDRESS_LIMIT // volumes.page_size // groups
        return Parts((number * step, number) for number in range(groups))
    if kind == "equal":
        return Parts(_equal_parts(groups, volumes))
    return Interleaved(groups, pages_per_segment(volumes.page_size))


def busy_groups_of_space(groups: int, volumes: VolumeSet) -> set[int]:
    """The groups of `space` that volumes reach; the others never get a page, unless a volume grows as far.

    Costs a step for each volume, and for each group that it reaches.
    """
    divided, busy = divide("space", groups, volumes), set[int]()
    for volume in volumes:
        first = volumes.first_page(volume)
        last = first + max(1, volumes.page_count(volume)) - 1
        busy.update(range(divided.group_of(first), divided.group_of(last) + 1))
    return busy


def _equal_parts(groups: int, volumes: VolumeSet) -> list[tuple[int, int]]:
    """Each volume in equal parts, so that writes to one volume alone reach every group."""
    parts: dict[int, int] = {0: 0}
    for volume in volumes:
        first, count = volumes.first_page(volume), volumes.page_count(volume)
        for number in range(groups):
            parts[first + count * number // groups] = number
    return sorted(parts.items())
