"""A model checker for the method of a task group: every interleaving of small cases, with nothing of the engine in it.

A case is a graph: its nodes are units in arrival order, its edges say which of them share a page. What a task group
does depends on nothing else, as rows have exact sets of pages. So all patterns of n units are all labelled graphs of
n nodes. The footprint of a unit is a number: a bit for a page of its own, and one for each edge at it.

Modelled, as in taskgroup.py: the receiver, which appends units in any portions, then closes; tasks; the main queue,
mini queues, rows, counters; parking, waking at most one, the chain of wakings; MINI_UNITS_MAX; give-back; handing out;
one unit that cannot be applied. A step is a critical section, with the opening of gates after it. A unit begins with the
step that hands it out, and ends with the next step of its task: the widest span, so two that overlap meet if they can.
Not modelled: credits, drains, several groups, statistics, and the threads below it all: test_taskgroup.py runs the
real classes under a scheduler for that.

Checked in each state: a unit begins once, after every earlier unit that overlaps it has ended (so no two that overlap
are ever applied together); no unit is lost or doubled; the invariants I1 to I7 of tests/fakes/invariants.py. In each
state without a next one: everything is applied, every task has ended. Every run ends: the states have no circle.

Left out of a state, as nothing can depend on it: which task is which, the order of parked tasks (all are alike), and
those pages of a row that no unfinished unit has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

TOP, BEGINS, APPLIES, WAITS, PARKED, ENDED = range(6)
PHASES = ("at the top", "begins", "applies", "waits", "parked", "ended")
NOBODY = -1
SHOWN = 1
"""The lowest bit of a row's range: it is not empty, whatever pages of it still matter."""


class ViolationError(Exception):
    """The method is wrong. The text says what was broken."""


class Graph:
    """One pattern of overlaps.

    Attributes:
        pages: the footprint of each unit.
        earlier: for each unit, the set of earlier units that overlap it. Sets of units are numbers: bit u is unit u.
        alive: for each set of finished units, the pages of the others.
    """

    def __init__(self, units: int, edges: Sequence[tuple[int, int]]) -> None:
        self.units = units
        self.edges = tuple(edges)
        self.pages = [2 << unit for unit in range(units)]
        self.earlier = [0] * units
        for page, (first, second) in enumerate(edges, units + 1):
            self.pages[first] |= 1 << page
            self.pages[second] |= 1 << page
            self.earlier[max(first, second)] |= 1 << min(first, second)
        self.alive = [
            SHOWN | _union(pages for unit, pages in enumerate(self.pages) if not finished >> unit & 1)
            for finished in range(1 << units)
        ]

    def unordered(self) -> list[int]:
        """The pairs of units that no chain of overlaps puts in order."""
        before = list(self.earlier)
        for unit, earlier in enumerate(self.earlier):
            before[unit] |= _union(before[each] for each in range(unit) if earlier >> each & 1)
        return [1 << a | 1 << b for b in range(self.units) for a in range(b) if not before[b] >> a & 1]


def _union(masks: Iterator[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union


@lru_cache(maxsize=None)
def pairs(units: int) -> tuple[tuple[int, int], ...]:
    """All pairs of units: the edges that a graph may have."""
    return tuple((a, b) for b in range(units) for a in range(b))


def graph_of(units: int, number: int) -> Graph:
    """The graph whose edges are the bits of a number, below 2 ** (units * (units - 1) / 2)."""
    return Graph(units, [pair for bit, pair in enumerate(pairs(units)) if number >> bit & 1])


class Task:
    """A task of the model. Attributes as in task.py and tasktable.py; `waiter` is the unit of the task to post to."""

    __slots__ = ("gate", "left", "mini", "opens", "phase", "place", "shown", "waiter", "work")

    def __init__(
        self,
        phase: int = TOP,
        work: tuple[int, ...] = (),
        mini: tuple[int, ...] = (),
        shown: int = 0,
        waiter: int = NOBODY,
        left: int = 0,
        gate: int = 0,
        opens: tuple[int, ...] = (),
        place: int = 0,
    ) -> None:
        self.phase = phase
        self.work = work
        self.mini = mini
        self.shown = shown
        self.waiter = waiter
        self.left = left
        self.gate = gate
        self.opens = opens
        self.place = place

    @property
    def has_row(self) -> bool:
        return bool(self.shown) or self.waiter != NOBODY

    def __str__(self) -> str:
        parts = [PHASES[self.phase], f"work {self.work}" * bool(self.work), f"mini {self.mini}" * bool(self.mini)]
        parts += ["shown" * bool(self.shown), f"posts to {self.waiter}" * (self.waiter != NOBODY)]
        return " ".join(filter(None, [*parts, f"left {self.left}" * bool(self.left)]))


def _place(task: Task) -> int:
    return task.place


class World:
    """A state that is being changed by one step."""

    __slots__ = ("arrived", "closed", "failed", "finished", "idle", "main", "opens", "tasks")

    def __init__(self, state: tuple) -> None:
        self.arrived, self.closed, self.failed, self.finished, self.main, self.opens, tasks = state
        self.tasks = [Task(*each) for each in tasks]
        self.idle = [each for each in self.tasks if each.phase == PARKED and each.place >= 0]
        self.idle.sort(key=_place)

    def waiter(self, unit: int) -> Task:
        for task in self.tasks:
            if task.phase == WAITS and task.work[0] == unit:
                return task
        raise ViolationError(f"a post to the counter of unit {unit}, for which no task waits")

    def __str__(self) -> str:
        tasks = "; ".join(map(str, self.tasks))
        return f"main {self.main} finished {self.finished:b}{' closed' * self.closed}: {tasks}"


class Method:
    """What taskgroup.py does under its lock, name by name. Each function that takes `gates` leaves some to be opened.

    Attributes:
        seen: how often something rare happened, by name.
    """

    def __init__(self, graph: Graph, mini_units_max: int = 32) -> None:
        self.pages = graph.pages
        self.mini_units_max = mini_units_max
        self.seen: Counter[str] = Counter()

    def submit(self, w: World, count: int, gates: list[Task]) -> None:
        w.main += tuple(range(w.arrived, w.arrived + count))
        w.arrived += count
        self.wake_one(w, gates)

    def close(self, w: World, gates: list[Task]) -> None:
        w.closed = 1
        gates += w.idle
        w.idle = []

    def step(self, w: World, me: Task, gates: list[Task]) -> None:
        if me.mini:
            self.pop_mini(w, me, gates)
        else:
            self.leave_table(w, me, gates)
            self.lead(w, me, gates)

    def pop_mini(self, w: World, me: Task, gates: list[Task]) -> None:
        me.work, me.mini = me.mini, ()
        me.phase = BEGINS
        if me.shown:
            self.give_back(w, me)
        else:
            self.pop_superseded(w, me, gates)
        if w.main:
            self.wake_one(w, gates)

    def give_back(self, w: World, me: Task) -> None:
        me.work, back = self.split(me.work)
        me.shown = SHOWN | self.pages_of(me.work)
        w.main = back + w.main

    def split(self, work: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The first unit and what overlaps it, directly or not; but nothing that a unit given back precedes."""
        pages = self.pages
        keep, back, kept, given = work[:1], (), pages[work[0]], 0
        for unit in work[1:]:
            if pages[unit] & kept and not pages[unit] & given:
                keep += (unit,)
                kept |= pages[unit]
            else:
                back += (unit,)
                given |= pages[unit]
        return keep, back

    def pop_superseded(self, w: World, me: Task, gates: list[Task]) -> None:
        """Keep everything."""

    def leave_table(self, w: World, me: Task, gates: list[Task]) -> None:
        if me.waiter != NOBODY:
            self.post(w, me, gates)
        me.shown = 0

    def post(self, w: World, me: Task, gates: list[Task]) -> None:
        waiter = w.waiter(me.waiter)
        waiter.left -= 1
        if not waiter.left:
            gates.append(waiter)
        me.waiter = NOBODY

    def lead(self, w: World, me: Task, gates: list[Task]) -> None:
        while w.main:
            unit, pages = w.main[0], self.pages[w.main[0]]
            hits = [task for task in w.tasks if task.shown & pages]
            if len(hits) == 1:
                if len(hits[0].mini) >= self.mini_units_max:
                    self.seen["a leader stops at a full mini queue"] += 1
                    return self.park(w, me)
                w.main = w.main[1:]
                self.delegate(unit, hits[0])
                continue
            w.main = w.main[1:]
            self.claim(w, me, unit, hits)
            if w.main:
                self.wake_one(w, gates)
            return None
        if not w.closed:
            return self.park(w, me)
        self.wake_one(w, gates)
        me.phase = ENDED
        return None

    def park(self, w: World, me: Task) -> None:
        me.phase = PARKED
        w.idle.append(me)

    def delegate(self, unit: int, hit: Task) -> None:
        hit.shown |= self.pages[unit]
        hit.mini += (unit,)

    def claim(self, w: World, me: Task, unit: int, hits: list[Task]) -> None:
        """1162-1168 with hits, 1178 without."""
        me.shown = SHOWN | self.pages[unit]
        for hit in hits:
            if hit.waiter != NOBODY:
                raise ViolationError("a task is superseded twice")
            hit.waiter = unit
            me.shown |= hit.shown
            hit.shown = 0
        me.work = (unit,)
        me.left = len(hits)
        me.phase = WAITS if hits else BEGINS

    def wake_one(self, w: World, gates: list[Task]) -> None:
        if w.idle:
            gates.append(w.idle.pop())

    def pages_of(self, units: Sequence[int]) -> int:
        pages = 0
        for unit in units:
            pages |= self.pages[unit]
        return pages


class HandsOut(Method):
    """A superseded task hands what shares no page with its first unit to parked tasks."""

    def pop_superseded(self, w: World, me: Task, gates: list[Task]) -> None:
        me.work, remainder = self.cluster(me.work)
        handed = 0
        while remainder and w.idle:
            helper = w.idle.pop()
            helper.mini, remainder = self.cluster(remainder)
            self.enter_helper(w, helper, me)
            gates.append(helper)
            handed += 1
        me.mini = remainder
        if handed:
            self.count(w, handed, remainder)

    def cluster(self, units: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The first unit and ALL that overlaps it, directly or not: it shares no page with the remainder."""
        pages, size = self.pages[units[0]], 0
        while len(keep := [unit for unit in units if self.pages[unit] & pages]) > size:
            size = len(keep)
            pages = self.pages_of(keep)
        return tuple(keep), tuple(unit for unit in units if not self.pages[unit] & pages)

    def enter_helper(self, w: World, helper: Task, me: Task) -> None:
        helper.waiter = me.waiter
        w.waiter(me.waiter).left += 1

    def count(self, w: World, handed: int, remainder: tuple[int, ...]) -> None:
        seen = self.seen
        seen[f"handed out to {handed}"] += 1
        seen["handed out, and some kept for later"] += bool(remainder)
        seen["handed out beside a main queue"] += bool(w.main)
        seen["handed out after the closing"] += bool(w.closed)


class HandsOutChains(HandsOut):
    """As first proposed: split as for giving back. WRONG: a unit may overlap what is kept, and be handed out."""

    def cluster(self, units: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.split(units)


@dataclass
class Found:
    """What a check of one case found.

    Attributes:
        states: different ones.
        together: sets of units that were being applied at once.
        violation: what was broken first; None for nothing.
        trace: the states that lead to it.
    """

    states: int = 0
    together: set[int] = field(default_factory=set)
    violation: str | None = None
    trace: list[str] = field(default_factory=list)


class Checker:
    """Explores all states of one case."""

    def __init__(
        self,
        method: Method,
        graph: Graph,
        tasks: int,
        *,
        fails: int | None = None,
        invariants: bool = True,
        traced: bool = False,
    ) -> None:
        self.method = method
        self.graph = graph
        self.fails = fails
        self.invariants = invariants
        self.origin: dict[tuple, tuple] | None = {} if traced else None
        self.start = (0, 0, 0, 0, (), (), tuple([_freeze(Task())] * tasks))
        self.found = Found()

    def run(self) -> Found:
        found = self.found
        seen, todo = {self.start}, [self.start]
        state = self.start
        try:
            while todo:
                state = todo.pop()
                nexts = self.nexts(state)
                if not nexts:
                    self.check_end(state)
                for after in nexts:
                    if after not in seen:
                        seen.add(after)
                        todo.append(after)
                        if self.origin is not None:
                            self.origin[after] = state
        except ViolationError as error:
            found.violation = str(error)
            self.tell(state)
        found.states = len(seen)
        return found

    def tell(self, state: tuple) -> None:
        while self.origin:
            self.found.trace.insert(0, str(World(state)))
            if state == self.start:
                return
            state = self.origin[state]

    def nexts(self, state: tuple) -> list[tuple]:
        arrived, closed, _, _, _, _, tasks = state
        nexts = []
        for count in range(1, self.graph.units - arrived + 1):
            w, gates = World(state), []
            self.method.submit(w, count, gates)
            nexts.append(self.after(w, gates))
        if arrived == self.graph.units and not closed:
            w, gates = World(state), []
            self.method.close(w, gates)
            nexts.append(self.after(w, gates))
        for index, task in enumerate(tasks):
            if (task[0] == TOP or task[0] == APPLIES) and (not index or task != tasks[index - 1]):
                nexts.append(self.after_task(World(state), index))
        return nexts

    def after_task(self, w: World, index: int) -> tuple:
        me = w.tasks[index]
        gates: list[Task] = []
        if me.phase == APPLIES:
            self.end(w, me)
            if me.work:
                self.begin(w, me)
                if me.work:
                    return self.after(w, gates)
            me.phase = TOP
        self.method.step(w, me, gates)
        return self.after(w, gates, me)

    def begin(self, w: World, me: Task) -> None:
        while me.work:
            unit = me.work[0]
            if not w.failed:
                if self.graph.earlier[unit] & ~w.finished:
                    raise ViolationError(f"order: unit {unit} begins before an earlier one that overlaps it has ended")
                if w.finished >> unit & 1:
                    raise ViolationError(f"unit {unit} begins twice")
                me.phase = APPLIES
                return
            w.finished |= 1 << unit
            me.work = me.work[1:]
        me.phase = TOP

    def end(self, w: World, me: Task) -> None:
        unit = me.work[0]
        me.work = me.work[1:]
        w.finished |= 1 << unit
        if unit == self.fails:
            w.failed = 1

    def after(self, w: World, gates: list[Task], me: Task | None = None) -> tuple:
        for task in gates:
            if task.phase == PARKED:
                task.phase = TOP
            elif task.phase == WAITS:
                self.begin(w, task)
            else:
                raise ViolationError("a gate is opened at which no task waits")
        if me is not None and me.phase == BEGINS:
            self.begin(w, me)
        return self.freeze(w)

    def freeze(self, w: World) -> tuple:
        if self.invariants:
            check_invariants(w, self.graph, self.method.mini_units_max)
        alive = self.graph.alive[w.finished]
        running = 0
        tasks = []
        for t in w.tasks:
            if t.phase == APPLIES:
                running |= 1 << t.work[0]
            tasks.append((t.phase, t.work, t.mini, t.shown & alive, t.waiter, t.left, 0, (), 0))
        self.found.together.add(running)
        tasks.sort()
        return (w.arrived, w.closed, w.failed, w.finished, w.main, (), tuple(tasks))

    def check_end(self, state: tuple) -> None:
        w = World(state)
        if w.finished != (1 << self.graph.units) - 1 or any(task.phase != ENDED for task in w.tasks):
            raise ViolationError(f"deadlock, or a unit is lost: {w}")
        if w.main or any(task.mini or task.left or task.has_row for task in w.tasks):
            raise ViolationError(f"something is left: {w}")


def _freeze(task: Task) -> tuple:
    return (task.phase, task.work, task.mini, task.shown, task.waiter, task.left, task.gate, task.opens, task.place)


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
    if w.main and any(task.phase == PARKED for task in w.tasks):
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
            raise ViolationError(f"I4: tasks wait in a circle: {w}")
        if any(graph.pages[unit] & ~end.shown for unit in (*task.work, *task.mini)):
            raise ViolationError(f"I4: a unit lies outside of what the last waiter shows: {w}")


def _check_sleepers(w: World, graph: Graph, mini_units_max: int) -> None:
    if any(task.phase == TOP and not task.has_row for task in w.tasks):
        return
    hits = [task for task in w.tasks if task.shown & graph.pages[w.main[0]]]
    if len(hits) != 1 or len(hits[0].mini) < mini_units_max:
        raise ViolationError(f"I7: a task sleeps beside a main queue that nobody will lead: {w}")


def cases(units: int) -> Iterator[Graph]:
    """All graphs of a number of units."""
    return (graph_of(units, number) for number in range(1 << len(pairs(units))))


def explain(method: Callable[[Graph], Method], graph: Graph, tasks: int, **options) -> Found:
    """The same case once more, with the way to the violation."""
    return Checker(method(graph), graph, tasks, traced=True, **options).run()
