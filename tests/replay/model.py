"""A model of a task group: the method without threads, for modelchecker.py to try every interleaving of small cases.

A case is a graph: its nodes are units in arrival order, its edges say which of them share a page. What a task group
does depends on nothing else, as rows have exact sets of pages. So all patterns of n units are all labelled graphs of
n nodes. The footprint of a unit is a number: a bit for a page of its own, and one for each edge at it.

Modelled, name by name as in taskgroup.py: tasks; the main queue, mini queues, rows, counters; parking, waking at most
one, the chain of wakings; MINI_UNITS_MAX; give-back; handing out; closing; one unit that cannot be applied.
Not modelled: credits and drains (inflight.py), several groups, traces and statistics, a task that dies of a bug, the
hull test of a row, and the threads below it all. For those test_taskgroup.py runs the real classes under a scheduler.
test_model.py does random runs of the model and of the real classes in step, and compares all that is modelled.

Sources: FIG. 11 of the text (mirrortool-method(7)); taskgroup.py, tasktable.py, counter.py, which the names are from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from mirrortool.replay.taskgroup import MINI_UNITS_MAX

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


@cache
def pairs(units: int) -> tuple[tuple[int, int], ...]:
    """All pairs of units: the edges that a graph may have."""
    return tuple((a, b) for b in range(units) for a in range(b))


def graph_of(units: int, number: int) -> Graph:
    """The graph whose edges are the bits of a number, below 2 ** (units * (units - 1) / 2)."""
    return Graph(units, [pair for bit, pair in enumerate(pairs(units)) if number >> bit & 1])


class Task:
    """A task of the model. Attributes as in task.py and tasktable.py, and some of its own.

    Attributes:
        waiter: where it posts: the unit of the task that waits for it; NOBODY is the NULL of FIG. 10.
        gate: whether its gate is open, and it has not passed yet.
        opens: what it has to do outside of the lock before anything else: see Later. The numbers of tasks.
        place: among the parked tasks; NOBODY if it is not one of them.
    """

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
        opens: tuple[tuple[int, int], ...] = (),
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
        """Whether it is in the table."""
        return bool(self.shown) or self.waiter != NOBODY

    def is_coming(self, w: World) -> bool:
        """Whether it is on its way to the main queue."""
        return not self.has_row and (self.phase == TOP or (self.phase == PARKED and self not in w.idle))

    def as_tuple(self) -> tuple:
        """All of it."""
        return (
            self.phase,
            self.work,
            self.mini,
            self.shown,
            self.waiter,
            self.left,
            self.gate,
            self.opens,
            self.place,
        )

    def __str__(self) -> str:
        parts = [PHASES[self.phase], f"work {self.work}" * bool(self.work), f"mini {self.mini}" * bool(self.mini)]
        parts += ["shown" * bool(self.shown), f"posts to {self.waiter}" * (self.waiter != NOBODY)]
        return " ".join(filter(None, [*parts, f"left {self.left}" * bool(self.left)]))


Later = Task | tuple[Task, int]
"""What a critical section leaves for after it: to open the gate of a task. Wrong methods also send a unit to one."""


def _place(task: Task) -> int:
    return task.place


class World:
    """A state of a group that is being changed by one step.

    Attributes:
        arrived: how many units were submitted.
        closed, failed: whether it was closed; whether a unit could not be applied.
        finished: a set of units.
        main: the main queue.
        opens: what the receiver has to do outside of the lock, as Task.opens.
        ends: the units in the order in which they ended, or nothing where nobody asks.
        tasks: all.
        idle: those parked, the latest last.
    """

    __slots__ = ("arrived", "closed", "ends", "failed", "finished", "idle", "main", "opens", "tasks")

    def __init__(self, state: tuple) -> None:
        self.arrived, self.closed, self.failed, self.finished, self.main, self.opens, self.ends, tasks = state
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
        seen: how many steps did something rare, by name.
    """

    def __init__(self, graph: Graph, mini_units_max: int = MINI_UNITS_MAX) -> None:
        self.pages = graph.pages
        self.mini_units_max = mini_units_max
        self.seen: Counter[str] = Counter()

    def submit(self, w: World, count: int, gates: list[Later]) -> None:
        w.main += tuple(range(w.arrived, w.arrived + count))
        w.arrived += count
        self.wake_one(w, gates)

    def close(self, w: World, gates: list[Later]) -> None:
        w.closed = 1
        gates += w.idle
        w.idle = []

    def step(self, w: World, me: Task, gates: list[Later]) -> None:
        if me.mini:
            self.pop_mini(w, me, gates)
        else:
            self.leave_table(w, me, gates)
            self.lead(w, me, gates)

    def pop_mini(self, w: World, me: Task, gates: list[Later]) -> None:
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

    def pop_superseded(self, w: World, me: Task, gates: list[Later]) -> None:
        """Keep everything."""

    def leave_table(self, w: World, me: Task, gates: list[Later]) -> None:
        if me.waiter != NOBODY:
            self.post(w, me, gates)
        me.shown = 0

    def post(self, w: World, me: Task, gates: list[Later]) -> None:
        waiter = w.waiter(me.waiter)
        if not waiter.left:
            raise ViolationError(f"a counter below zero: that of unit {me.waiter}")
        waiter.left -= 1
        if not waiter.left:
            gates.append(waiter)
        me.waiter = NOBODY

    def lead(self, w: World, me: Task, gates: list[Later]) -> None:
        while w.main:
            unit, pages = w.main[0], self.pages[w.main[0]]
            hits = [task for task in w.tasks if task.shown & pages]
            if len(hits) == 1:
                if len(hits[0].mini) >= self.mini_units_max:
                    self.seen["a leader stops at a full mini queue"] += 1
                    return self.park(w, me)
                w.main = w.main[1:]
                self.delegate(unit, hits[0], gates)
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

    def delegate(self, unit: int, hit: Task, gates: list[Later]) -> None:
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

    def wake_one(self, w: World, gates: list[Later]) -> None:
        if w.idle:
            gates.append(w.idle.pop())

    def pages_of(self, units: Sequence[int]) -> int:
        pages = 0
        for unit in units:
            pages |= self.pages[unit]
        return pages


class HandsOut(Method):
    """A superseded task hands what shares no page with its first unit to parked tasks."""

    def pop_superseded(self, w: World, me: Task, gates: list[Later]) -> None:
        me.work, *others = self.parts(me.work)
        handed = 0
        for part in others:
            if w.idle:
                helper = w.idle.pop()
                helper.mini += part
                self.enter_cleared(w, helper, me.waiter)
                gates.append(helper)
                handed += 1
            else:
                me.mini += part
        if others:
            self.count(w, me, others, handed)

    def parts(self, units: tuple[int, ...]) -> list[tuple[int, ...]]:
        """As many as possible of which no two share a page; each in order, that of the first unit first."""
        parts = []
        while units:
            pages, size = self.pages[units[0]], 0
            while len(part := [unit for unit in units if self.pages[unit] & pages]) > size:
                size = len(part)
                pages = self.pages_of(part)
            parts.append(tuple(sorted(part)))
            units = tuple(unit for unit in units if unit not in part)
        return parts

    def enter_cleared(self, w: World, helper: Task, waiter: int) -> None:
        helper.waiter = waiter
        self.join(w.waiter(waiter))

    def join(self, waiter: Task) -> None:
        if not waiter.left:
            raise ViolationError("a counter is raised after the last post")
        waiter.left += 1

    def count(self, w: World, me: Task, others: list[tuple[int, ...]], handed: int) -> None:
        seen = self.seen
        if not handed:
            seen["several parts, and no task is parked"] += 1
            return
        seen[f"handed out to {handed}"] += 1
        seen["handed out, and some kept for later"] += handed < len(others)
        seen["handed out parts of several units"] += any(len(part) > 1 for part in others[:handed])
        seen["handed out beside a main queue"] += bool(w.main)
        seen["handed out after the closing"] += bool(w.closed)
        seen["handed out for a waiter that is superseded"] += w.waiter(me.waiter).waiter != NOBODY
