"""A task group that says which numerals of FIG. 11 its tasks pass, for a person who follows the figure.

Rule: the method is TaskGroup's. Each method here calls the one that it replaces, and notes what that did.
Rule: only numerals that the code has, where mirrortool-method(7) says, in the order of the figure. Under the lock the
code may set two fields the other way round.
Rule: what the figure does not have, give-back and handing out, is noted without a numeral.
Rule: a task that is woken from where it was parked has stayed at 1138, as the dequeue of the figure blocks. On its way
there again it finds nothing to do.

Owner of the notes: whichever thread runs; so this is for SteppedThreads (stepwise.py), and not for a replay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from string import ascii_uppercase

from mirrortool.address import adjacent_runs
from mirrortool.replay.inflight import InFlight
from mirrortool.replay.stepwise import SteppedThreads
from mirrortool.replay.task import Task, Verdict
from mirrortool.replay.taskgroup import Apply, TaskGroup
from mirrortool.replay.tasktable import Row
from mirrortool.replay.threads import Gate
from mirrortool.replay.writeunit import How, PageSet, WriteUnit
from mirrortool.wording import counted


@dataclass(frozen=True, slots=True)
class Passage:
    """A task passed numerals, one after another.

    Attributes:
        task: its number.
        numerals: of FIG. 11; none for what the figure does not have.
        words: what they came to.
    """

    task: int
    numerals: tuple[int, ...]
    words: str


class _Way(Enum):
    """How a task came to its work: the numerals where it begins with it, where it processes a unit, and at the end."""

    MINI_QUEUE = (1118, 1120), 1122
    MAIN_QUEUE = (1184,), 1186

    def __init__(self, begins: tuple[int, ...], ends: int) -> None:
        self.begins = begins
        self.ends = ends


@dataclass(slots=True)
class _Place:
    """Where in the figure a task is: parked at 1138 or not, and how it came to the work that it has."""

    is_parked: bool = False
    way: _Way = _Way.MAIN_QUEUE


class NumberedGroup(TaskGroup):
    """A TaskGroup that notes what its tasks do, by the figure's numerals."""

    def __init__(self, apply: Apply, in_flight: InFlight, *, tasks: int, threads: SteppedThreads) -> None:
        """A group with number 0, of tasks that take turns."""
        super().__init__(0, apply, in_flight, tasks=tasks, seam=threads)
        self._passages: list[Passage] = []
        self._places = [_Place() for _ in range(tasks)]

    def pop_passages(self) -> list[Passage]:
        """What was passed since the last call, in that order."""
        passages, self._passages = self._passages, []
        return passages

    def work_of(self, task: int) -> list[int]:
        """The numbers of the units that a task has popped or dequeued, and not counted as finished."""
        with self._lock:
            return [unit.sequence for unit in self._tasks[task].work]

    # A task's thread, outside the lock.

    def _step(self, me: Task) -> Verdict:
        if me.work:
            self._note(me, self._places[me.number].way.ends, words=f"{names(me.work[-1:])} is done, back to the top")
        return super()._step(me)

    def _apply_one(self, me: Task, unit: WriteUnit) -> None:
        way, is_first = self._places[me.number].way, unit is me.work[0]
        words = f"writes {names([unit])}"
        if way is _Way.MINI_QUEUE and is_first:
            words = f"drops the lock, {words}"
        elif unit.how is How.COUNTER_WAIT:
            words = f"its counter is 0: {words}"
        self._note(me, *(way.begins if is_first else way.begins[-1:]), words=words)
        super()._apply_one(me, unit)

    # Inside the lock.

    def _pop_mini(self, me: Task, gates: list[Gate]) -> None:
        self._places[me.number] = _Place(way=_Way.MINI_QUEUE)
        self._note(me, 1112, 1114, 1116, words=f"gets the lock; its mini queue has {names(me.mini)}")
        super()._pop_mini(me, gates)

    def _split(self, me: Task, units: list[WriteUnit]) -> None:
        before = pages_of(me.row.range)
        super()._split(me, units)
        back = [unit for unit in units if unit not in me.work]
        if back:
            self._note(me, words=f"keeps {names(me.work)}, gives {names(back)} back to the main queue")
        if before != (after := pages_of(me.row.range)):
            self._note(me, words=f"its row shows {after}, and no more than that")

    def _hand_out(self, me: Task, units: list[WriteUnit], gates: list[Gate]) -> None:
        super()._hand_out(me, units, gates)
        handed = [unit for unit in units if unit not in me.work and unit not in me.mini]
        if handed:
            self._note(me, words=f"keeps {names(me.work)}, and hands {names(handed)} to idle tasks")

    def _leave_table(self, me: Task, gates: list[Gate]) -> None:
        counter, had_row = me.row.counter, me.row in self._table
        super()._leave_table(me, gates)
        if self._places[me.number].is_parked:
            return
        self._note(me, 1112, 1114, 1124, words="gets the lock; its mini queue is empty")
        if counter:
            self._note(me, 1126, words=f"has a counter pointer, to the counter of task {counter.owner}")
            self._note(me, 1128, 1130, words=f"posts to the counter: it is {counter.left} now; the pointer is NULL")
        else:
            self._note(me, 1126, words="has no counter pointer")
        self._note(me, 1132, words="removes its row" if had_row else "has no row to remove")

    def _park(self, me: Task) -> Verdict:
        place = self._places[me.number]
        if not place.is_parked:
            place.is_parked = True
            why = "leads no further, as that mini queue is long" if self._main else "the main queue is empty"
            self._note(me, 1138, words=f"{why}: parks")
        return super()._park(me)

    def _delegate(self, me: Task, unit: WriteUnit, hit: Row) -> None:
        before = pages_of(hit.range)
        super()._delegate(me, unit, hit)
        after = pages_of(hit.range)
        grown = f"expands it to {after}" if after != before else f"it covers {names([unit])} already"
        self._note_dequeued(me, unit)
        self._note(me, 1144, 1146, words=f"one range matches: {before} of task {hit.task}")
        self._note(me, 1148, words=grown)
        self._note(me, 1150, words=f"sends {names([unit])} to the mini queue of task {hit.task}")
        self._note(me, 1154, words="back to (A)")

    def _wait_for(self, me: Task, unit: WriteUnit, hits: list[Row]) -> Verdict:
        verdict = super()._wait_for(me, unit, hits)
        tasks = " and ".join(str(hit.task) for hit in hits)
        self._note_dequeued(me, unit)
        self._note(me, 1144, 1160, words=f"{counted(len(hits), 'range')} match: those of tasks {tasks}")
        self._note(me, 1162, words="sets their counter pointers to its own counter")
        self._note(me, 1164, words="clears their ranges")
        self._note(me, 1166, words=f"its row covers them and {names([unit])}: {pages_of(me.row.range)}")
        self._note(me, 1168, words=f"initializes its counter with {me.counter.left}")
        self._note(me, 1170, 1172, 1174, words="drops the lock, waits for its counter")
        return verdict

    def _claim_range(self, me: Task, unit: WriteUnit) -> Verdict:
        verdict = super()._claim_range(me, unit)
        self._note_dequeued(me, unit)
        self._note(me, 1176, 1178, words=f"no range matches: its row shows {pages_of(me.row.range)}")
        self._note(me, 1180, 1182, words="drops the lock")
        return verdict

    def _note_dequeued(self, me: Task, unit: WriteUnit) -> None:
        self._places[me.number] = _Place(way=_Way.MAIN_QUEUE)
        self._note(me, 1138, 1142, words=f"dequeues {names([unit])}, looks in the table")

    def _note(self, me: Task, *numerals: int, words: str) -> None:
        self._passages.append(Passage(me.number, numerals, words))


def name(sequence: int) -> str:
    """A unit by a letter, in arrival order; a number after Z."""
    return ascii_uppercase[sequence] if sequence < len(ascii_uppercase) else str(sequence)


def names(units: Iterable[WriteUnit]) -> str:
    """Units by their letters."""
    return ", ".join(name(unit.sequence) for unit in units)


def pages_of(pages: PageSet) -> str:
    """Pages as words."""
    runs = adjacent_runs(list(pages.each_page()))
    words = ", ".join(f"{first}-{first + count - 1}" if count > 1 else str(first) for first, count in runs)
    return f"pages {words}" if words.strip("0123456789") else f"page {words}"
