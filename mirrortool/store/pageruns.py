"""Runs of pages as sets: many of them gathered in bounded memory, and the pages of some without those of others.

Bound: `RunCollector` has twice the runs that are left when they are merged, and at least _MERGE_AT.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mirrortool.store.parallelread import Run

_MERGE_AT = 40_000


class RunCollector:
    """Runs of pages in any order, merged now and then, so that the memory is that of the merged ones."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._merge_at = _MERGE_AT

    def add(self, run: Run) -> None:
        self._runs.append(run)
        if len(self._runs) >= self._merge_at:
            self._runs = merged_runs(sorted(self._runs))
            self._merge_at = max(self._merge_at, 2 * len(self._runs))

    def merged(self) -> list[Run]:
        """All of them, ascending and disjoint."""
        return merged_runs(sorted(self._runs))


def merged_runs(runs: Iterable[Run]) -> list[Run]:
    """Ascending runs, which may overlap, as disjoint ones that do not meet."""
    return list(joined(runs))


def joined(runs: Iterable[Run]) -> Iterator[Run]:
    """The same one by one, for any number of them."""
    begun: Run | None = None
    for first, count in runs:
        if begun is None or first > begun[0] + begun[1]:
            if begun:
                yield begun
            begun = first, count
        else:
            begun = begun[0], max(begun[1], first + count - begun[0])
    if begun:
        yield begun


def without(runs: Sequence[Run], excused: Sequence[Run] | None) -> tuple[list[Run], int]:
    """The pages of `runs` that are not in `excused` (None: all are), and how many were; both ascending and disjoint."""
    if excused is None:
        return [], sum(count for _, count in runs)
    kept: list[Run] = []
    at = 0
    for first, count in runs:
        end = first + count
        while at < len(excused) and excused[at][0] + excused[at][1] <= first:
            at += 1
        following = at
        while first < end:
            start, length = excused[following] if following < len(excused) else (end, 0)
            if first < start:
                kept.append((first, min(end, start) - first))
            first = max(first, min(end, start + length))
            if start >= end:
                break
            following += 1
    return kept, sum(count for _, count in runs) - sum(count for _, count in kept)
