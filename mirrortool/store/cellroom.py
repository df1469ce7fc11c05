"""The cells of a backing that hold no extent, and from which backing the next one is taken.

    free       durably zero; the record says so
    claimed    durably zero, too, but the record says that it may be anything: such a cell can be given out at once

Rule: a cell is claimed durably before it is given out, many at a time, so that one sync does for hundreds of extents.
Rule: the backings are used in proportion to their room, so that all fill up together, and all devices work.
Bound: runs of cells; as many as what is in use lies apart.

Everything here is under the lock of its owner, allocation.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mirrortool.address import adjacent_runs
from mirrortool.store.backing import Backing

CLAIM_BYTES = 256 << 20
"""What is claimed at once; after a crash no more than this, and what was in use, has to be zeroed."""

Run = tuple[int, int]
"""First cell, and how many."""


class CellRoom:
    """The room of one backing.

    Attributes:
        is_closed: nothing is taken from it any more; it is being drained.
    """

    def __init__(self, backing: Backing, free: Iterable[Run], *, is_closed: bool = False) -> None:
        """
        Args:
            free: runs of cells that are durably zero, ascending.
        """
        self._backing = backing
        self._free = list(reversed(list(free)))  # the lowest last, which is used first
        self._claimed: list[Run] = []  # likewise
        self._free_count = sum(count for _, count in self._free)
        self._claimed_count = 0
        self._taken_since = 0  # since the last top_up
        self.is_closed = is_closed

    @property
    def left(self) -> int:
        """Cells that can be taken."""
        return 0 if self.is_closed else self._free_count + self._claimed_count

    @property
    def claimed_count(self) -> int:
        """Cells that can be taken at once."""
        return self._claimed_count

    def take(self) -> int:
        """Take the lowest claimed cell; there is one."""
        first, count = self._claimed.pop()
        if count > 1:
            self._claimed.append((first + 1, count - 1))
        self._claimed_count -= 1
        self._taken_since += 1
        return first

    def to_claim(self, wanted: int) -> list[Run]:
        """Choose free cells for the claim of `wanted` cells, and some more; they are claimed once that is durable."""
        batch = max(1, CLAIM_BYTES // self._backing.header.extent_bytes)
        left = min(max(wanted, batch), self._free_count)
        chosen = []
        while left:
            first, count = self._free.pop()
            if count > left:
                self._free.append((first + left, count - left))
                count = left
            chosen.append((first, count))
            self._free_count -= count
            left -= count
        return chosen

    def to_top_up(self) -> list[Run]:
        """Choose free cells to claim with a sync, so that the next windows need no sync for their claims."""
        batch = max(1, CLAIM_BYTES // self._backing.header.extent_bytes)
        wanted = max(batch, self._taken_since)
        is_used, self._taken_since = self._taken_since > 0, 0
        if self.is_closed or not is_used or 2 * self._claimed_count >= wanted:
            return []
        return self.to_claim(wanted - self._claimed_count)

    def add_claimed(self, runs: Iterable[Run]) -> None:
        """These were claimed durably."""
        runs = list(runs)
        self._claimed = _merged([*self._claimed, *runs])
        self._claimed_count += sum(count for _, count in runs)

    def add_free(self, runs: Iterable[Run]) -> None:
        """These are durably zero, and their records say free, or claimed."""
        runs = list(runs)
        self._free = _merged([*self._free, *runs])
        self._free_count += sum(count for _, count in runs)

    def give_claimed_up(self) -> list[Run]:
        """The claimed cells, which were not given out, are free from now on."""
        runs, self._claimed, self._claimed_count = self._claimed, [], 0
        self.add_free(runs)
        return runs


def _merged(runs: Sequence[Run]) -> list[Run]:
    """Runs, the lowest last, joined where they meet."""
    merged: list[Run] = []
    for first, count in sorted(runs, reverse=True):
        if merged and first + count == merged[-1][0]:
            merged[-1] = first, count + merged[-1][1]
        else:
            merged.append((first, count))
    return merged


class Turns:
    """Chooses the backing that gives the next cell, each as often as its share of the room (smooth weighted turns)."""

    def __init__(self, rooms: Sequence[CellRoom]) -> None:
        self._rooms = rooms
        self._credit = [0] * len(rooms)

    def next(self) -> int | None:
        """The number of a backing that has room; None if none has."""
        total, best = 0, -1
        for number, room in enumerate(self._rooms):
            if left := room.left:
                total += left
                self._credit[number] += left
                if best < 0 or self._credit[number] > self._credit[best]:
                    best = number
        if best < 0:
            return None
        self._credit[best] -= total
        return best


def runs_of(cells: Iterable[int]) -> list[Run]:
    """Cells in any order as ascending runs."""
    return list(adjacent_runs(sorted(cells)))
