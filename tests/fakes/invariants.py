"""What must hold whenever the lock of a task group is released.

I1  Shown ranges share no page.
I2  A task that shows a range has a row, and nobody waits for it.
I3  A counter is the number of tasks that point at it.
I4  A unit that is not finished lies within the range at the end of its owner's chain of waiters, which has an end.
I5  A task with something on its mini queue has a row.
I6  A row that shows no range has a counter pointer.
I7  Nobody sleeps beside a main queue that is not empty, unless somebody is on the way to it, or will be: the first unit
    there waits for one task whose mini queue is full, and that task wakes the next as it takes it.
"""

from __future__ import annotations

from functools import lru_cache

from mirrortool.replay.taskgroup import TaskGroup
from mirrortool.replay.tasktable import Row
from mirrortool.replay.writeunit import Footprint, PageSet


def check_invariants(group: TaskGroup, finished: set[int]) -> None:
    """All of them, for a group whose lock is held; `finished` has the sequence numbers of finished units."""
    _check_rows(group)
    _check_counters(group)
    _check_units(group, finished)
    _check_sleepers(group)


def check_quiet(group: TaskGroup) -> None:
    """Nothing is left anywhere in a group whose tasks have ended."""
    assert not group._main, "units left on the main queue"
    assert not len(group._table), "rows left in the table"
    for task in group._tasks:
        assert not task.mini, "units left on a mini queue"
        assert task.counter.left == 0, "a counter is not back to zero"
        assert task.row.counter is None, "a counter pointer is left"


def _check_rows(group: TaskGroup) -> None:
    union = 0
    for task in group._tasks:
        row = task.row
        shown = _mask(row.range) if row.range.end else 0
        assert not union & shown, f"I1: the range of task {task.number} overlaps another"
        union |= shown
        if shown:
            assert row in group._table, f"I2: task {task.number} shows a range without a row"
            assert row.counter is None, f"I2: task {task.number} shows a range while somebody waits for it"
        elif row in group._table:
            assert row.counter is not None, f"I6: the row of task {task.number} stands for nothing"
        if task.mini:
            assert row in group._table, f"I5: task {task.number} was sent a unit without having a row"


def _check_counters(group: TaskGroup) -> None:
    pointers = [0] * len(group._tasks)
    for task in group._tasks:
        if (counter := task.row.counter) is not None:
            pointers[counter.owner] += 1
    for task, count in zip(group._tasks, pointers, strict=True):
        assert task.counter.left == count, f"I3: counter {task.number} is {task.counter.left}, not {count}"


def _check_units(group: TaskGroup, finished: set[int]) -> None:
    for task in group._tasks:
        if not task.work and not task.mini:
            continue
        unfinished = [unit for unit in (*task.work, *task.mini) if unit.sequence not in finished]
        if not unfinished:
            continue
        shown = _mask(_end_of_chain(group, task.row).range)
        for unit in unfinished:
            assert not _mask_of(unit.footprint) & ~shown, f"I4: nobody shows the pages of unit {unit.sequence}"


def _end_of_chain(group: TaskGroup, row: Row) -> Row:
    for _ in group._tasks:
        if row.counter is None:
            return row
        row = group._tasks[row.counter.owner].row
    raise AssertionError("I4: tasks wait in a circle")


def _check_sleepers(group: TaskGroup) -> None:
    if group._main and group._idle:
        coming = [task for task in group._tasks if task not in group._idle and task.row not in group._table]
        full = [task for task in group._tasks if len(task.mini) >= group.mini_units_max]
        assert coming or full, "I7: a task sleeps beside a main queue that is not empty"


def _mask(pages: PageSet) -> int:
    """The pages as the bits of a number."""
    mask = 0
    for first, end in pages._runs:
        mask |= (1 << end) - (1 << first)
    for page in pages._pages or ():
        mask |= 1 << page
    return mask


@lru_cache(maxsize=64)
def _mask_of(footprint: Footprint) -> int:
    """Those of a footprint, which never change."""
    return sum(1 << page for page in footprint.each_page())
