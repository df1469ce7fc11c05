"""The active task table of FIG. 10: which task works on which pages, and which tasks wait for it.

Rule: the ranges shown by two rows never share a page, because a unit that overlaps a row either joins its task or
clears its range. So the order of the rows does not matter.
Bound: one row a task.
Not here: locks. The whole table belongs to the lock of its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirrortool.replay.counter import Counter
from mirrortool.replay.writeunit import Footprint, PageSet

if TYPE_CHECKING:
    from mirrortool.replay.task import Task


class Row:
    """One entry: task identifier (982), range (984) and counter pointer (986).

    Each task owns one for good, which is in the table while the task has work.

    Attributes:
        task: the number of the task in its group.
        range: the pages of all units that the task has or waits to run; empty once a waiter has superseded it.
        counter: where the task posts when it leaves the table; None is the NULL of FIG. 10.
    """

    __slots__ = ("counter", "range", "task")

    def __init__(self, task: int) -> None:
        self.task = task
        self.range = PageSet()
        self.counter: Counter | None = None


@dataclass(frozen=True, slots=True)
class RowSnapshot:
    """A row as it was, for displays.

    Attributes:
        task: number of the task in its group.
        first: lowest page of its range; 0 where the range is empty.
        end: one above the highest page; 0 where the range is empty.
        counter: number of the task that waits for this one, or None.
        waits_for: how many tasks this one still waits for.
        mini: the numbers (WriteUnit.sequence) of the units on its mini queue.
    """

    task: int
    first: int
    end: int
    counter: int | None
    waits_for: int
    mini: tuple[int, ...] = ()


class ActiveTaskTable:
    """The rows of the tasks that work or wait for others (980); idle tasks have none."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: Row) -> bool:
        return row.task in self._rows

    def matches(self, footprint: Footprint) -> list[Row]:
        """The rows whose range overlaps a footprint (1142); overlaps, because "includes" would break the order."""
        first, end = footprint.first, footprint.end
        return [
            row
            for row in self._rows.values()
            if row.range.first < end and first < row.range.end and row.range.intersects(footprint)
        ]

    def enter(self, row: Row, footprint: Footprint) -> None:
        """Show that a task works on a footprint (1178, 1166)."""
        row.range.add(footprint)
        self._rows[row.task] = row

    def enter_cleared(self, row: Row, counter: Counter) -> None:
        """Show a task that works for another one, which is waited for: no range, and the same counter to post to."""
        row.counter = counter
        counter.join()
        self._rows[row.task] = row

    def leave(self, row: Row) -> None:
        """Remove a task's entry, if that was not previously done (1132)."""
        if self._rows.pop(row.task, None) is not None:
            row.range.clear()

    def snapshot(self, tasks: Sequence[Task]) -> tuple[RowSnapshot, ...]:
        """All rows, by task number. `tasks` are those of the group, by number."""
        return tuple(_snapshot(self._rows[number], tasks[number]) for number in sorted(self._rows))


def _snapshot(row: Row, task: Task) -> RowSnapshot:
    waiter = None if row.counter is None else row.counter.owner
    mini = tuple(unit.sequence for unit in task.mini)
    return RowSnapshot(row.task, row.range.first, row.range.end, waiter, task.counter.left, mini)
