"""An explicit-state model checker for model.py: goes through every state that a case can reach.

Checker has coarse steps. One is the end of what a task applied, what it does under the lock, the opening of gates, and
the begin of what it or a task that it woke applies next. So each unit takes the widest span, and two that overlap meet
if they can. FineChecker has each of these as a step of its own.

The receiver submits the units in portions of any size, then closes the group.

Checked in each state: a unit begins once, after every earlier unit that overlaps it has ended (so no two that overlap
are ever applied together); after an error none begins; no unit is lost or doubled; I1 to I7 of tests/fakes/invariants.
In each state without a next one: everything is applied, every task has ended. On request: no run lasts for ever.

Left out of a state, as nothing can depend on it: which task is which; in coarse steps the order of parked tasks, as all
are alike; and those pages of a row that no unfinished unit has.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.replay.model import (
    APPLIES,
    BEGINS,
    ENDED,
    NOBODY,
    PARKED,
    SHOWN,
    TOP,
    WAITS,
    Graph,
    Later,
    Method,
    Task,
    ViolationError,
    World,
)

State = tuple


@dataclass
class Found:
    """What a check of one case found.

    Attributes:
        states: different ones.
        together: sets of units that were being applied at once.
        ends: the orders in which the units can end; only where asked for.
        violation: what was broken first; None for nothing.
        trace: the states that lead to it, where edges are kept.
    """

    states: int = 0
    together: set[int] = field(default_factory=set)
    ends: set[tuple[int, ...]] = field(default_factory=set)
    violation: str | None = None
    trace: list[str] = field(default_factory=list)

    def ever_together(self, pair: int) -> bool:
        """Whether the units of a set were being applied at once."""
        return any(running & pair == pair for running in self.together)


class Checker:
    """Explores all states of one case, in coarse steps."""

    fine = False

    def __init__(
        self,
        method: Method,
        graph: Graph,
        tasks: int,
        *,
        fails: int | None = None,
        invariants: bool = True,
        closes_early: bool = False,
        keeps_ends: bool = False,
        keeps_edges: bool = False,
    ) -> None:
        """For one graph and a number of tasks.

        Args:
            fails: the unit that cannot be applied.
            invariants: check I1 to I7; all else is checked always.
            closes_early: the receiver may close before the last unit.
            keeps_ends: remember the order in which units end; it becomes a part of each state.
            keeps_edges: remember each step: for the trace of a violation, and to see that every run ends.
        """
        self.method = method
        self.graph = graph
        self.fails = fails
        self.invariants = invariants
        self.closes_early = closes_early
        self.keeps_ends = keeps_ends
        self.keeps_edges = keeps_edges
        self.edges: dict[State, list[State]] = {}
        first = Task(place=NOBODY if self.fine else 0).as_tuple()
        self.start: State = (0, 0, 0, 0, (), (), (), (first,) * tasks)
        self.found = Found()

    def run(self) -> Found:
        """Go through all states, or until something is broken."""
        seen, todo = {self.start}, [self.start]
        state = self.start
        try:
            while todo:
                state = todo.pop()
                nexts = self.nexts(state)
                if not nexts:
                    self.check_end(state)
                if self.keeps_edges:
                    self.edges[state] = nexts
                for after in nexts:
                    if after not in seen:
                        seen.add(after)
                        todo.append(after)
            if self.keeps_edges:
                self.check_no_cycle()
        except ViolationError as error:
            self.found.violation = str(error)
            self.found.trace = self.way_to(state)
        self.found.states = len(seen)
        return self.found

    def way_to(self, state: State) -> list[str]:
        """The states from the start to this one."""
        origin = {after: before for before, nexts in reversed(self.edges.items()) for after in nexts}
        way = [state]
        while way[-1] in origin and way[-1] != self.start:
            way.append(origin[way[-1]])
        return [str(World(each)) for each in reversed(way)]

    def check_no_cycle(self) -> None:
        """Remove each state to which no step leads any more, until none is left: then no run lasts for ever."""
        steps_to = Counter(after for nexts in self.edges.values() for after in nexts)
        todo, left = [self.start] * (not steps_to[self.start]), len(self.edges)
        while todo:
            left -= 1
            for after in self.edges[todo.pop()]:
                steps_to[after] -= 1
                if not steps_to[after]:
                    todo.append(after)
        if left:
            raise ViolationError("a run can last for ever")

    # The steps.

    def nexts(self, state: State) -> list[State]:
        """The states after each step that is possible in this one."""
        nexts = self.nexts_of_receiver(state)
        tasks = state[-1]
        for index, task in enumerate(tasks):
            if (task[0] == TOP or task[0] == APPLIES) and (not index or task != tasks[index - 1]):
                nexts.append(self.next_of_task(World(state), index))
        return nexts

    def nexts_of_receiver(self, state: State) -> list[State]:
        nexts: list[State] = []
        arrived, closed = state[:2]
        if closed:
            return nexts
        for count in range(1, self.graph.units - arrived + 1):
            w, gates = World(state), []
            self.method.submit(w, count, gates)
            nexts.append(self.after_receiver(w, gates))
        if arrived == self.graph.units or self.closes_early:
            w, gates = World(state), []
            self.method.close(w, gates)
            nexts.append(self.after_receiver(w, gates))
        return nexts

    def after_receiver(self, w: World, gates: list[Later]) -> State:
        self.open_all(w, gates)
        return self.freeze(w)

    def next_of_task(self, w: World, index: int) -> State:
        me = w.tasks[index]
        gates: list[Later] = []
        if me.phase == APPLIES:
            self.end(w, me)
            self.begin_next(w, me)
        if me.phase == TOP:
            self.method.step(w, me, gates)
        self.open_all(w, gates)
        if me.phase == BEGINS:
            self.begin_next(w, me)
        return self.freeze(w)

    def open_all(self, w: World, gates: list[Later]) -> None:
        for each in gates:
            task = self.do_later(each)
            if task.gate:
                self.pass_gate(task)
                if task.phase == BEGINS:
                    self.begin_next(w, task)

    def begin_next(self, w: World, me: Task) -> None:
        """After an error all of its work is finished without being applied."""
        while me.phase == BEGINS:
            self.begin(w, me)

    def begin(self, w: World, me: Task) -> None:
        unit = me.work[0]
        if w.failed:
            self.finish(w, me)
            return
        if self.graph.earlier[unit] & ~w.finished:
            raise ViolationError(f"order: unit {unit} begins before an earlier one that overlaps it has ended")
        if w.finished >> unit & 1:
            raise ViolationError(f"unit {unit} begins twice")
        me.phase = APPLIES

    def end(self, w: World, me: Task) -> None:
        if me.work[0] == self.fails:
            w.failed = 1
        if self.keeps_ends:
            w.ends += me.work[:1]
        self.finish(w, me)

    def finish(self, w: World, me: Task) -> None:
        w.finished |= 1 << me.work[0]
        me.work = me.work[1:]
        me.phase = BEGINS if me.work else TOP

    def do_later(self, each: Later) -> Task:
        if isinstance(each, tuple):
            task, unit = each
            task.mini += (unit,)
            return task
        if each.gate or each.phase not in (WAITS, PARKED):
            raise ViolationError("a gate is opened at which no task waits")
        each.gate = 1
        return each

    def pass_gate(self, me: Task) -> None:
        me.gate = 0
        me.phase = BEGINS if me.phase == WAITS else TOP

    # The states.

    def freeze(self, w: World) -> State:
        if self.invariants:
            check_invariants(w, self.graph, self.method.mini_units_max)
        alive = self.graph.alive[w.finished]
        running = 0
        tasks = []
        for t in w.tasks:
            if t.phase == APPLIES:
                running |= 1 << t.work[0]
            elif t.phase == PARKED and t not in w.idle:
                raise ViolationError(f"a parked task is found, and not woken: {w}")
            tasks.append((t.phase, t.work, t.mini, t.shown & alive, t.waiter, t.left, 0, (), 0))
        self.found.together.add(running)
        tasks.sort()
        return (w.arrived, w.closed, w.failed, w.finished, w.main, (), w.ends, tuple(tasks))

    def check_end(self, state: State) -> None:
        w = World(state)
        self.found.ends.add(w.ends)
        if w.finished != (1 << w.arrived) - 1 or any(task.phase != ENDED for task in w.tasks):
            raise ViolationError(f"all wait, or a unit is lost: {w}")
        if w.main or any(task.mini or task.left or task.has_row for task in w.tasks):
            raise ViolationError(f"something is left: {w}")


class FineChecker(Checker):
    """The same in fine steps: a begin, an end, an opening of a gate and a passing of one are steps of their own."""

    fine = True

    def nexts(self, state: State) -> list[State]:
        nexts = self.nexts_of_receiver(state)
        for index, (phase, *_, gate, opens, _) in enumerate(state[-1]):
            if opens or gate or phase in (TOP, BEGINS, APPLIES):
                nexts.append(self.next_of_task(World(state), index))
        return nexts

    def nexts_of_receiver(self, state: State) -> list[State]:
        if not state[5]:
            return super().nexts_of_receiver(state)
        w = World(state)
        first, *others = w.opens
        w.opens = tuple(others)
        self.do_later(_later(w, first))
        return [self.freeze(w)]

    def after_receiver(self, w: World, gates: list[Later]) -> State:
        w.opens = _as_opens(w, gates)
        return self.freeze(w)

    def next_of_task(self, w: World, index: int) -> State:
        me = w.tasks[index]
        if me.opens:
            first, *others = me.opens
            me.opens = tuple(others)
            self.do_later(_later(w, first))
        elif me.phase == TOP:
            gates: list[Later] = []
            self.method.step(w, me, gates)
            me.opens = _as_opens(w, gates)
        elif me.phase == BEGINS:
            self.begin(w, me)
        elif me.phase == APPLIES:
            self.end(w, me)
        else:
            self.pass_gate(me)
        return self.freeze(w)

    def freeze(self, w: World) -> State:
        if self.invariants:
            check_invariants(w, self.graph, self.method.mini_units_max)
        alive = self.graph.alive[w.finished]
        running = 0
        for t in w.tasks:
            if t.phase == APPLIES:
                running |= 1 << t.work[0]
            t.shown &= alive
            t.place = w.idle.index(t) if t in w.idle else NOBODY
        self.found.together.add(running)
        # Tasks that are alike but for what they open may be put in either order: that costs states, and is not wrong.
        order = sorted(range(len(w.tasks)), key=lambda index: _without_opens(w.tasks[index]))
        new = {old: position for position, old in enumerate(order)}
        for t in w.tasks:
            t.opens = tuple([(new[index], unit) for index, unit in t.opens])
        opens = tuple([(new[index], unit) for index, unit in w.opens])
        tasks = tuple([w.tasks[index].as_tuple() for index in order])
        return (w.arrived, w.closed, w.failed, w.finished, w.main, opens, w.ends, tasks)


def _without_opens(t: Task) -> State:
    return (t.phase, t.work, t.mini, t.shown, t.waiter, t.left, t.gate, len(t.opens), t.place)


def _as_opens(w: World, gates: list[Later]) -> tuple[tuple[int, int], ...]:
    pairs = [each if isinstance(each, tuple) else (each, NOBODY) for each in gates]
    return tuple([(w.tasks.index(task), unit) for task, unit in pairs])


def _later(w: World, each: tuple[int, int]) -> Later:
    index, unit = each
    return w.tasks[index] if unit == NOBODY else (w.tasks[index], unit)


def check_invariants(w: World, graph: Graph, mini_units_max: int) -> None:
    """I1 to I7, and that each unit is in one place."""
    shown = count = 0
    pointers = []
    for task in w.tasks:
        if task.shown:
            pages = task.shown & ~SHOWN
            if shown & pages:
                raise ViolationError(f"I1: two rows share a page: {w}")
            shown |= pages
            if task.waiter != NOBODY:
                raise ViolationError(f"I2: a row that somebody waits for shows a range: {w}")
        elif task.waiter != NOBODY:
            pointers.append(task.waiter)
        elif task.mini:
            raise ViolationError(f"I5: a task has a mini queue and no row: {w}")
        elif task.work:
            raise ViolationError(f"I6: a task has work and no row: {w}")
        count += len(task.work) + len(task.mini)
    if count + len(w.main) + w.finished.bit_count() != w.arrived:
        raise ViolationError(f"a unit is lost, or in two places: {w}")
    if pointers or any(task.left for task in w.tasks):
        _check_waiters(w, graph, pointers)
    if w.main and w.idle:
        _check_sleepers(w, graph, mini_units_max)


def _check_waiters(w: World, graph: Graph, pointers: list[int]) -> None:
    for task in w.tasks:
        if task.left != (pointers.count(task.work[0]) if task.phase == WAITS else 0):
            raise ViolationError(f"I3: a counter is not the number of its pointers: {w}")
        end = task
        for _ in w.tasks:
            if end.waiter == NOBODY:
                break
            end = w.waiter(end.waiter)
        else:
            raise ViolationError(f"I4: tasks wait in a cycle: {w}")
        if any(graph.pages[unit] & ~end.shown for unit in (*task.work, *task.mini)):
            raise ViolationError(f"I4: a unit lies outside of what the last waiter shows: {w}")


def _check_sleepers(w: World, graph: Graph, mini_units_max: int) -> None:
    if any(task.is_coming(w) for task in w.tasks):
        return
    hits = [task for task in w.tasks if task.shown & graph.pages[w.main[0]]]
    if len(hits) != 1 or len(hits[0].mini) < mini_units_max:
        raise ViolationError(f"I7: a task sleeps beside a main queue that nobody will lead: {w}")
