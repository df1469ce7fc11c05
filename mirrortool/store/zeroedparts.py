"""Extents that become zeros piece by piece: which pages of each did since it was last written.

A replay cuts a ZERO where units and groups end; when the pieces make up the whole extent, it can be freed.

Bound: EXTENTS_MAX extents, and of each the runs that do not meet; with more, what was noted is forgotten, and an extent
keeps its cell, zeroed.
"""

from __future__ import annotations

from mirrortool.store.pageruns import merged_runs

EXTENTS_MAX = 1 << 12
_RUNS_MAX = 1 << 6


class ZeroedParts:
    """Under its owner's lock, but for asking whether it is empty."""

    def __init__(self) -> None:
        self._runs: dict[int, list[tuple[int, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, extent: int, pages: range, whole: int) -> bool:
        """These pages of the extent are zeros; whether all `whole` of them are by now."""
        runs = merged_runs(sorted([*self._runs.get(extent, ()), (pages.start, len(pages))]))
        if runs == [(0, whole)]:
            return True
        if len(self._runs) >= EXTENTS_MAX:
            self._runs.clear()
        self._runs[extent] = runs[:_RUNS_MAX]
        return False

    def forget(self, extent: int) -> None:
        """The extent is written, or freed."""
        self._runs.pop(extent, None)

    def clear(self) -> None:
        """Forget all: the parts of one ZERO are not further apart than this."""
        self._runs.clear()
