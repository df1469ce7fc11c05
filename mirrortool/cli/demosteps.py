"""`mirrortool demo --steps`: five units go through FIG. 11, step by step.

The group is a real one; only its store holds each unit until the demonstration lets it go, and its threads take turns
(replay/stepwise.py). So every run prints the same. All steps are done before the first is printed, and no thread is
left: it does not matter when the reader of the output goes.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from mirrortool.cli.replayview import describe_ways, ways_of
from mirrortool.cli.text import columns, counted
from mirrortool.replay.inflight import InFlight
from mirrortool.replay.numerals import NumberedGroup, Passage, name
from mirrortool.replay.stepwise import SteppedThreads
from mirrortool.replay.taskgroup import GroupStatistics
from mirrortool.replay.tasktable import RowSnapshot
from mirrortool.replay.threads import Gate
from mirrortool.replay.writeunit import UNIT_COST_BYTES, Footprint, WriteUnit

TASKS = 5
FOOTPRINTS = ((0, 8), (0, 3), (6, 10), (2, 7), (8, 10))
"""Of the units A to E: the first page, and one above the last."""
A, B, C, D, E = range(len(FOOTPRINTS))
WIDTH_DEFAULT = 80
_WIDTH_MIN, _WIDTH_MAX = 50, 100
_LABEL = 10
_NUMERALS = 16
_INDENT = " " * 4
_NO_NUMERAL = "not in FIG. 11"


@dataclass(frozen=True, slots=True)
class DemoStep:
    """What happened, and how the group was when all its tasks had stopped.

    Attributes:
        title: what happened.
        why: why the tasks do what they do.
        passages: of all tasks, in their order.
        table: the active task table.
        work: the unit that each task writes, or waits to write, by the task's number.
    """

    title: str
    why: str
    passages: Sequence[Passage]
    table: Sequence[RowSnapshot]
    work: dict[int, str]


class Demonstration:
    """The group and its store, driven by one thread."""

    def __init__(self) -> None:
        """A group that has not started."""
        self._threads = SteppedThreads()
        self._in_flight = InFlight(len(FOOTPRINTS) * UNIT_COST_BYTES, self._threads)
        self.group = NumberedGroup(self._hold, self._in_flight, tasks=TASKS, threads=self._threads)
        self._held: dict[int, Gate] = {}  # by the unit's number

    def steps(self) -> Iterator[DemoStep]:
        """All steps, each when it is done.

        Raises:
            BaseException: a task found an error in the method.
        """
        yield self._step("Five tasks start", "None of them finds anything to do.", self.group.start)
        yield self._arrives(A, "Task 0, which parked last, is woken and finds no other row.")
        yield self._arrives(B, "It overlaps A, which is being written, so it goes to the task of A.")
        yield self._arrives(C, "It overlaps A, too, and has pages that A does not have.")
        yield self._is_done(A, "B and C share no page, so another task can write C.")
        yield self._arrives(D, "It overlaps B and C, which are both being written.")
        yield self._arrives(E, "It overlaps C, but those pages are in the row of task 2 now.")
        yield self._is_done(B, "Task 2 waits for one task fewer.")
        yield self._is_done(C, "Nothing is left to wait for, so task 2 writes D.")
        yield self._is_done(D, "Task 2 finds E on its mini queue.")
        yield self._is_done(E, "All tasks are parked again.")
        self.group.close()
        assert self._in_flight.is_drained(), "each unit was written"

    def _arrives(self, number: int, why: str) -> DemoStep:
        first, end = FOOTPRINTS[number]
        unit = WriteUnit(number, Footprint(first, end))
        title = f"Unit {name(number)}, pages {first}-{end - 1}, arrives"
        return self._step(title, why, lambda: self.group.submit([unit]))

    def _is_done(self, number: int, why: str) -> DemoStep:
        return self._step(f"Unit {name(number)} is done", why, self._held.pop(number).open)

    def _hold(self, unit: WriteUnit) -> None:
        """The store."""
        gate = self._held[unit.sequence] = self._threads.gate()
        gate.wait()

    def _step(self, title: str, why: str, action: Callable[[], object]) -> DemoStep:
        action()
        self._threads.run()
        if self._in_flight.failure:
            raise self._in_flight.failure.error
        table = self.group.table()
        work = {row.task: self._work_of(row) for row in table}
        return DemoStep(title, why, self.group.pop_passages(), table, work)

    def _work_of(self, row: RowSnapshot) -> str:
        """What a task writes or waits to write; a unit that is done stays its work until it has the table lock."""
        return _names([each for each in self.group.work_of(row.task) if row.waits_for or each in self._held])


def text(width: int) -> Iterator[str]:
    """The lines of the whole demonstration; prose is folded at a width in characters."""
    demonstration = Demonstration()
    steps = list(demonstration.steps())
    yield from _folded(
        f"FIG. 11 step by step: {counted(len(FOOTPRINTS), 'unit')} go through a group of {TASKS} tasks. The store "
        "holds each unit until a step says that it is done. Numerals that the code does not have are left out: it has "
        "one lock for two (1134, 1136, 1140, 1152), and looks at a mini queue once (1102 to 1110). A parked task "
        "stands at 1138.",
        width,
    )
    yield ""
    yield from _picture()
    for number, step in enumerate(steps):
        yield ""
        yield from _folded(f"{number:2}. {step.title}", width)
        yield from _folded(step.why, width, _INDENT, _INDENT)
        yield from _moves(step.passages, width)
        yield ""
        yield from _table(step)
    yield ""
    yield from _end(demonstration.group.statistics(), width)


def output_width() -> int:
    """Of the terminal, in characters, within limits; of no terminal, a usual one."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns or WIDTH_DEFAULT
    except (OSError, ValueError):
        return WIDTH_DEFAULT
    return max(_WIDTH_MIN, min(columns, _WIDTH_MAX))


def _picture() -> Iterator[str]:
    """Which pages each unit has."""
    pages = range(max(end for _, end in FOOTPRINTS))
    yield f"{_INDENT}PAGES  " + " ".join(map(str, pages))
    for number, (first, end) in enumerate(FOOTPRINTS):
        yield f"{_INDENT}{name(number):7}{' '.join('*' if first <= page < end else ' ' for page in pages)}".rstrip()


def _moves(passages: Sequence[Passage], width: int) -> Iterator[str]:
    """What each task did in one go; what all did alike, once."""
    goes = [(task, [(each.numerals, each.words) for each in group]) for task, group in groupby(passages, _task)]
    alike = len(goes) == TASKS and all(lines == goes[0][1] for _, lines in goes)
    for task, lines in goes[:1] if alike else goes:
        label = f"{_INDENT}each" if alike else f"{_INDENT}task {task}"
        for numerals, words in lines:
            begins = f"{label:{_LABEL}}  {' '.join(map(str, numerals)) or _NO_NUMERAL:{_NUMERALS}}"
            yield from _folded(words, width, begins, " " * len(begins))
            label = ""


def _table(step: DemoStep) -> Iterator[str]:
    """The active task table, with what SIGUSR1 shows of it."""
    rows = [_table_row(row, step.work[row.task]) for row in step.table]
    if not rows:
        yield f"{_INDENT}the active task table is empty"
        return
    for line in columns(("TASK", "PAGES", "UNIT", "MINI QUEUE", "COUNTER OF", "WAITS FOR"), rows):
        yield f"{_INDENT}{line}"


def _table_row(row: RowSnapshot, unit: str) -> tuple[str, ...]:
    pages = f"{row.first}-{row.end - 1}" if row.end else "cleared"
    counter = "-" if row.counter is None else f"task {row.counter}"
    waits_for = counted(row.waits_for, "task") if row.waits_for else "-"
    return str(row.task), f"{pages:{len('cleared')}}", unit, _names(row.mini), counter, waits_for


def _end(group: GroupStatistics, width: int) -> Iterator[str]:
    ways = describe_ways(ways_of([group]))
    yield from _folded(f"{counted(group.units, 'unit')} written: {ways} and counted again.", width)
    yield ""
    yield from _folded(
        "Where the code departs from FIG. 11, and why: man mirrortool-method. To see the same of a replay of your own: "
        "mirrortool replay --trace FILE, then mirrortool trace FILE.",
        width,
    )


def _names(units: Sequence[int]) -> str:
    return ", ".join(map(name, units)) or "-"


def _task(passage: Passage) -> int:
    return passage.task


def _folded(words: str, width: int, begins: str = "", indent: str = "") -> list[str]:
    return textwrap.wrap(words, width, initial_indent=begins, subsequent_indent=indent, break_on_hyphens=False)
