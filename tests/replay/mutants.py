"""Task groups that are wrong: plausible misreadings of FIG. 11, and mistakes that its repairs invite.

Each differs from TaskGroup in one respect. test_taskgroup.py shows that the tests tell each of them from the real one.
"""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import islice

from mirrortool.replay.task import Task, Verdict
from mirrortool.replay.taskgroup import TaskGroup, parts_without_overlap
from mirrortool.replay.tasktable import ActiveTaskTable, Row
from mirrortool.replay.writeunit import Footprint, PageSet, WriteUnit
from tests.fakes.scheduler import Scheduler, _Gate

# Misreadings of the figure.


class NoSecondLook(TaskGroup):
    """1114 left out: the mini queue is looked at only before the lock is taken for good."""

    def _step(self, me):
        gates = []
        with self._lock:
            sent = bool(me.mini)
        with self._lock:
            self._count_finished(me)
            if sent:
                self._pop_mini(me, gates)
                verdict = Verdict.RUN
            else:
                self._leave_table(me, gates)
                verdict = self._lead(me, gates)
        for gate in gates:
            gate.open()
        return verdict


class SendsAfterUnlocking(TaskGroup):
    """1150 after 1152."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._unsent = defaultdict(list)

    def _delegate(self, me: Task, unit: WriteUnit, hit: Row):
        hit.range.add(unit.footprint)
        self._unsent[self._seam.running()].append((self._tasks[hit.task], unit))

    def _step(self, me):
        verdict = super()._step(me)
        self._seam.point()
        for task, unit in self._unsent.pop(self._seam.running(), ()):
            task.mini.append(unit)
            task.delegated += 1
        return verdict


class DropsMainLock(TaskGroup):
    """The main queue is unlocked between 1138 and 1140, so another task can get to the table first."""

    def _lead(self, me, gates):
        while self._main:
            unit = self._main.popleft()
            self._lock.__exit__(None, None, None)
            self._lock.__enter__()
            hits = self._table.matches(unit.footprint)
            if len(hits) == 1:
                self._delegate(me, unit, hits[0])
                continue
            me.work = [unit]
            verdict = self._wait_for(me, unit, hits) if hits else self._claim_range(me, unit)
            if self._main:
                self._wake_one(gates)
            return verdict
        return super()._lead(me, gates)


class _IncludesTable(ActiveTaskTable):
    def matches(self, footprint: Footprint):
        pages = set(footprint.each_page())
        return [row for row in self._rows.values() if pages <= set(row.range.each_page())]


class MatchesWhatIncludes(TaskGroup):
    """A match is a range that includes the unit, not one that overlaps it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._table = _IncludesTable()


class DoesNotGrow(TaskGroup):
    """1148 left out."""

    def _delegate(self, me: Task, unit: WriteUnit, hit: Row):
        task = self._tasks[hit.task]
        task.mini.append(unit)
        task.delegated += 1


class DoesNotClear(TaskGroup):
    """1164 left out."""

    def _wait_for(self, me: Task, unit: WriteUnit, hits: list[Row]):
        for hit in hits:
            hit.counter = me.counter
            me.row.range.update(hit.range)
        self._table.enter(me.row, unit.footprint)
        me.counter.establish(len(hits))
        me.waited += 1
        return Verdict.WAIT


class ShowsOwnOnly(TaskGroup):
    """1166 without the ranges of the tasks that it waits for."""

    def _wait_for(self, me: Task, unit: WriteUnit, hits: list[Row]):
        verdict = super()._wait_for(me, unit, hits)
        me.row.range = PageSet([unit.footprint])
        return verdict


class PostsUndrained(TaskGroup):
    """1128 as soon as the unit is done, though the mini queue has more."""

    def _pop_mini(self, me: Task, gates):
        if me.row.counter is not None:
            if me.row.counter.post(me.number, 0):
                gates.append(me.row.counter.gate)
            me.row.counter = None
        super()._pop_mini(me, gates)

    def _hand_out(self, me: Task, units, _gates):
        me.work = units


class PostsOutside(TaskGroup):
    """1126-1130 without the table's lock."""

    def _step(self, me):
        if not me.mini and (counter := me.row.counter) is not None:
            me.row.counter = None
            self._seam.point()
            if counter.post(me.number, 0):
                counter.gate.open()
        return super()._step(me)

    def _wait_for(self, me: Task, unit: WriteUnit, hits: list[Row]):
        for hit in hits:
            hit.counter = me.counter
            me.row.range.update(hit.range)
            hit.range.clear()
        self._seam.point()
        self._table.enter(me.row, unit.footprint)
        me.counter.establish(len(hits))
        me.waited += 1
        return Verdict.WAIT


class KeepsPointer(TaskGroup):
    """1130 left out: the task posts again each time that it has nothing to do."""

    def _leave_table(self, me: Task, gates):
        counter = me.row.counter
        super()._leave_table(me, gates)
        me.row.counter = counter


class _PulsingGate(_Gate):
    def wait(self):
        self.scheduler.point()
        super().wait()

    def open(self):
        self.scheduler.pause(None)
        self.is_open = any(each.wants is self for each in self.scheduler.strands)


class PulsingScheduler(Scheduler):
    """The counter as a bare notification: a task that does not wait yet misses it."""

    def gate(self):
        return _PulsingGate(self)


class BoundsMiniQueues(TaskGroup):
    """A mini queue of one unit; a leader that finds it full waits, and holds the lock meanwhile."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._room = defaultdict(self._seam.gate)

    def _delegate(self, me: Task, unit: WriteUnit, hit: Row):
        if len(self._tasks[hit.task].mini) >= 1:
            self._room[hit.task].wait()
        super()._delegate(me, unit, hit)

    def _pop_mini(self, me: Task, gates):
        gates.append(self._room[me.number])
        super()._pop_mini(me, gates)


class DiesOfErrors(TaskGroup):
    """A task ends when the store raises: its row stays, and whoever waits for it waits for ever."""

    def _apply_one(self, me: Task, unit: WriteUnit):
        try:
            self._apply_traced(me, unit, self._tracer)
        except Exception as error:
            self._in_flight.fail(unit.sequence, error)
            raise _EndOfTaskError from error

    def _run(self, me: Task):
        try:
            while (verdict := self._step(me)) is not Verdict.EXIT:
                if verdict is not Verdict.RUN:
                    me.gate.wait()
                if verdict is not Verdict.PARK:
                    self._apply_work(me)
        except _EndOfTaskError:
            pass


class _EndOfTaskError(Exception):
    pass


# Mistakes in the repairs.


class NeverSplits(TaskGroup):
    """A wide unit captures whatever comes after it."""

    def _split(self, me: Task, units):
        me.work, me.row.range = units, PageSet(unit.footprint for unit in units)


class SplitsPastGiven(TaskGroup):
    """Keeps a unit although one that it overlaps, and that arrived before it, is given back."""

    def _split(self, me: Task, units):
        keep, back = [units[0]], []
        kept = PageSet([units[0].footprint])
        for unit in islice(units, 1, None):
            if kept.intersects(unit.footprint):
                keep.append(unit)
                kept.add(unit.footprint)
            else:
                back.append(unit)
        me.work, me.row.range = keep, kept
        self._give_back(me, back)


class SplitsSuperseded(TaskGroup):
    """Splits although a waiter has taken over, and shows a range again."""

    def _hand_out(self, me: Task, units, _gates):
        self._split(me, units)


class GivesBackLast(TaskGroup):
    """To the end of the main queue, behind units that arrived later."""

    def _give_back(self, me: Task, back):
        super()._give_back(me, [])
        self._main.extend(back)
        me.given_back += len(back)


class GivesBackReversed(TaskGroup):
    """To the front, but the latest first."""

    def _give_back(self, me: Task, back):
        super()._give_back(me, back[::-1])


class ShowsTooLittle(TaskGroup):
    """After a split shows only the first of the units kept."""

    def _split(self, me: Task, units):
        super()._split(me, units)
        me.row.range = PageSet([units[0].footprint])


class HandsOutUncounted(TaskGroup):
    """Hands a part out to an idle task without making its waiter wait for that task too."""

    def _hand_out(self, me: Task, units, gates):
        counter = me.row.counter
        me.work, *others = parts_without_overlap(units)
        for part in others:
            if self._idle:
                helper = self._idle.pop()
                helper.mini.extend(part)
                helper.row.counter = counter
                self._table._rows[helper.number] = helper.row
                gates.append(helper.gate)
            else:
                me.mini.extend(part)


class HandsOutOverlapping(TaskGroup):
    """Hands out each unit by itself, also what overlaps one before it."""

    def _hand_out(self, me: Task, units, gates):
        counter = me.row.counter
        me.work, others = units[:1], units[1:]
        while others and self._idle:
            helper = self._idle.pop()
            helper.mini.append(others.pop(0))
            self._table.enter_cleared(helper.row, counter)
            gates.append(helper.gate)
        me.mini.extend(others)


class ForgetsWhatItCannotHandOut(TaskGroup):
    """Gives the parts for which there is no idle task back to the main queue, behind those of its waiter."""

    def _hand_out(self, me: Task, units, gates):
        super()._hand_out(me, units, gates)
        left = list(me.mini)
        me.mini.clear()
        self._give_back(me, left)


class DoesNotWakeTheNext(TaskGroup):
    """Leaves the main queue without waking the next leader."""

    def _wake_one(self, gates):
        if not self._seam.running().startswith("mirrortool"):
            super()._wake_one(gates)


class WakesNobody(TaskGroup):
    """Submits without waking anybody."""

    def _wake_one(self, gates):
        if self._seam.running().startswith("mirrortool"):
            super()._wake_one(gates)


class EndsEarly(TaskGroup):
    """Once closed, a task ends although the main queue is not empty."""

    def _lead(self, me: Task, gates):
        return Verdict.EXIT if self._closed else super()._lead(me, gates)


class LeavesSleepers(TaskGroup):
    """Empties a full mini queue without waking the tasks that stopped leading because of it."""

    mini_units_max = 1

    def _pop_mini(self, me: Task, gates):
        super()._pop_mini(me, [])


class EndsBesideSleepers(TaskGroup):
    """Once closed, a task that ends does not wake one that parked after the closing."""

    mini_units_max = 1

    def _lead(self, me: Task, gates):
        woken = []
        verdict = super()._lead(me, woken)
        if verdict is not Verdict.EXIT:
            gates += woken
        return verdict


class FinishesEarly(TaskGroup):
    """Counts a unit as finished before it was applied."""

    def _apply_work(self, me: Task):
        for unit in me.work:
            self._in_flight.finished(unit)
            self._apply_one(me, unit)


class StoresErrorsLate(TaskGroup):
    """Hands the successors on before the error is known."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._late = defaultdict(deque)

    def _apply_one(self, me: Task, unit: WriteUnit):
        try:
            self._apply_traced(me, unit, self._tracer)
        except Exception as error:
            self._late[me.number].append((unit.sequence, error))

    def _step(self, me: Task):
        verdict = super()._step(me)
        while self._late[me.number]:
            self._in_flight.fail(*self._late[me.number].popleft())
        return verdict


class GoesOnAfterErrors(TaskGroup):
    """Applies what overlaps the unit that failed."""

    def _apply_work(self, me: Task):
        for unit in me.work:
            self._apply_one(me, unit)
            self._in_flight.finished(unit)
