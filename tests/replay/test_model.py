"""The method of a task group in every interleaving of small cases, and that the model of it is the code.

A case is a pattern of overlaps; the patterns of n units are all labelled graphs of n nodes. See model.py for what is
modelled, modelchecker.py for what is checked.

`pytest -m soak -s tests/replay/test_model.py` is the run with larger bounds, and prints its figures: half an hour.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice

import pytest

from mirrortool.replay.inflight import InFlight
from mirrortool.replay.task import Verdict
from mirrortool.replay.taskgroup import MINI_UNITS_MAX, TaskGroup
from mirrortool.replay.writeunit import Footprint, WriteUnit
from tests.replay import modelmutants as mutants
from tests.replay.model import (
    BEGINS,
    ENDED,
    NOBODY,
    PARKED,
    SHOWN,
    TOP,
    WAITS,
    Graph,
    HandsOut,
    Later,
    Task,
    World,
    graph_of,
    pairs,
)
from tests.replay.modelchecker import Checker, FineChecker, Found

CHAINED = Graph(6, [(0, 2), (0, 3), (2, 4), (3, 4), (0, 5), (1, 5)])
"""The first unit gets 2, 3 and 4, and 5 supersedes it. 2 and 3 share no page, but 4 overlaps both."""

PARTED = Graph(5, [(0, 2), (0, 3), (0, 4), (1, 4)])
"""The first unit gets 2 and 3, which share no page, and 4 supersedes it and the task of 1."""


@dataclass
class Sum:
    """What the checks of many cases found."""

    cases: int = 0
    states: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        seen = "".join(f"; {name} {count}" for name, count in sorted(self.seen.items()))
        return f"{self.cases} cases, {self.states} states, 0 violations{seen}"


def graphs(units: int) -> Iterable[Graph]:
    """All patterns of a number of units."""
    return (graph_of(units, number) for number in range(1 << len(pairs(units))))


def check_all(cases, tasks, kind=Checker, mini_units_max=MINI_UNITS_MAX, runs_together=True, **options) -> Sum:
    """Each case with each number of tasks: nothing is broken, and units run together unless overlaps order them."""
    total = Sum()
    for graph in cases:
        for count in tasks:
            method = HandsOut(graph, mini_units_max)
            found = kind(method, graph, count, **options).run()
            assert found.violation is None, f"{graph.edges}, {count} tasks: {found.violation}"
            if runs_together and count > 1:
                check_together(graph, found, mini_units_max)
            total.cases += 1
            total.states += found.states
            total.seen += method.seen
    return total


def check_together(graph: Graph, found: Found, mini_units_max: int) -> None:
    """Two that no chain of overlaps orders, unless more depend on the first between them than a mini queue holds."""
    for pair in graph.unordered():
        if not found.ever_together(pair):
            first, second = (unit for unit in range(graph.units) if pair >> unit & 1)
            count = dependents(graph, first, second)
            assert count > mini_units_max, f"{graph.edges}: {first} and {second} never run together"


def dependents(graph: Graph, first: int, second: int) -> int:
    """How many units between two a chain of overlaps orders after the first."""
    chain = 1 << first
    for unit in range(first + 1, second):
        if graph.earlier[unit] & chain:
            chain |= 1 << unit
    return chain.bit_count() - 1


# Every interleaving.


@pytest.mark.parametrize("units", [1, 2, 3, 4])
def test_coarse_steps(units):
    check_all(graphs(units), range(1, 5), keeps_edges=True)


@pytest.mark.parametrize("units", [1, 2, 3])
def test_fine_steps(units):
    check_all(graphs(units), range(1, 4), FineChecker, keeps_edges=True)


@pytest.mark.parametrize("longest", [1, 2])
def test_short_mini_queues(longest):
    check_all(graphs(4), [3], mini_units_max=longest)


@pytest.mark.parametrize("fails", range(3))
def test_one_unit_fails(fails):
    check_all(graphs(3), range(1, 4), fails=fails, runs_together=False, keeps_edges=True)


def test_closing_at_any_time():
    check_all(graphs(3), range(1, 4), closes_early=True, keeps_edges=True)


@pytest.mark.parametrize("units", [1, 2, 3])
def test_fine_steps_lead_to_nothing_new(units):
    compare_steps(graphs(units), range(1, 4))


def compare_steps(cases, tasks) -> Sum:
    """The units end in the same orders, and the same are applied at once."""
    total = Sum()
    for graph in cases:
        for count in tasks:
            coarse, fine = (
                kind(HandsOut(graph), graph, count, keeps_ends=True).run() for kind in (Checker, FineChecker)
            )
            assert coarse.violation is None and fine.violation is None
            assert (coarse.ends, coarse.together) == (fine.ends, fine.together)
            total.cases += 1
            total.states += coarse.states + fine.states
    return total


@pytest.mark.parametrize(
    ("graph", "tasks", "kind"),
    [(PARTED, 3, FineChecker), (PARTED, 4, Checker), (CHAINED, 4, Checker)],
    ids=["parted, fine steps", "parted", "chained"],
)
def test_a_superseded_task_hands_out(graph, tasks, kind):
    found = check_all([graph], [tasks], kind, keeps_edges=True)
    assert (found.seen["handed out to 1"] > 0) == (graph is PARTED)


# Wrong methods are found out; by what they break, not by I1 to I7, where they break anything else.

WRONG = [
    (mutants.SendsAfterUnlocking, "a unit is lost", Graph(2, [(0, 1)]), 2),
    (mutants.DoesNotGrow, "order", Graph(3, [(0, 1), (1, 2)]), 2),
    (mutants.PostsUndrained, "order", Graph(4, [(1, 2), (0, 3), (2, 3)]), 3),
    (mutants.GivesBackLast, "order", Graph(4, [(0, 1), (0, 2), (2, 3)]), 2),
    (mutants.ShowsTooLittle, "order", Graph(4, [(0, 1), (1, 2), (2, 3)]), 2),
    (mutants.HandsOutChains, "order", CHAINED, 4),
    (mutants.HandsOutSingly, "order", Graph(5, [(0, 2), (2, 3), (0, 4), (1, 4)]), 3),
    (mutants.HandsOutUncounted, "for which no task waits", PARTED, 3),
    (mutants.HandsOutUnposted, "order", Graph(5, [(1, 2), (1, 3), (0, 4), (3, 4)]), 3),
    (mutants.HandsOutShown, "superseded twice", Graph(6, [*PARTED.edges, (0, 5), (1, 5), (3, 5)]), 4),
    (mutants.HandsOutAsleep, "not woken", PARTED, 3),
    (mutants.KeepsLast, "order", Graph(5, [(1, 2), (1, 3), (0, 4), (3, 4)]), 3),
    (mutants.KeepsFirst, "order", Graph(5, [(1, 2), (1, 3), (0, 4), (3, 4)]), 3),
    (mutants.ForgetsTheRemainder, "a unit is lost", PARTED, 3),
]


@pytest.mark.parametrize(("method", "effect", "graph", "tasks"), WRONG, ids=[method.__name__ for method, *_ in WRONG])
def test_wrong_method_is_found_out(method, effect, graph, tasks):
    kind = FineChecker if method is mutants.SendsAfterUnlocking else Checker
    found = kind(method(graph), graph, tasks, invariants=False, keeps_edges=True).run()
    assert re.search(effect, found.violation or "")
    assert len(found.trace) > 3
    assert kind(HandsOut(graph), graph, tasks, invariants=False).run().violation is None


def test_a_sleeper_beside_work_is_found_out():
    graph = Graph(3, [(0, 1), (0, 2)])
    found = Checker(mutants.WakesNoLeader(graph, 1), graph, 2).run()
    assert found.violation.startswith("I7")


def test_a_run_without_an_end_is_found_out():
    class Restless(HandsOut):
        def park(self, w: World, me: Task) -> None:
            me.phase = TOP

    graph = Graph(1, [])
    assert "for ever" in Checker(Restless(graph), graph, 1, keeps_edges=True).run().violation


# The model is the code: both do the same steps, and are in the same state after each.


class CountingGate:
    """Counts how often it was opened."""

    def __init__(self) -> None:
        self.count = 0

    def open(self) -> None:
        self.count += 1


class NoThreads:
    """Nothing waits, as the test itself does one step after another."""

    lock = nullcontext
    gate = CountingGate


VERDICTS = {Verdict.RUN: BEGINS, Verdict.WAIT: WAITS, Verdict.PARK: PARKED, Verdict.EXIT: ENDED}


class Pair:
    """A real group and the model of it."""

    def __init__(self, graph: Graph, tasks: int, mini_units_max: int) -> None:
        self.graph = graph
        self.model = HandsOut(graph, mini_units_max)
        self.world = World((0, 0, 0, 0, (), (), (), (Task(place=NOBODY).as_tuple(),) * tasks))
        self.group = TaskGroup(0, print, InFlight(1), tasks=tasks, seam=NoThreads())
        self.group.mini_units_max = mini_units_max
        self.units = [WriteUnit(unit, _footprint(graph.pages[unit])) for unit in range(graph.units)]

    def submit(self, count: int) -> None:
        first = self.world.arrived
        self.group._enqueue(islice(self.units, first, first + count))
        gates: list[Later] = []
        self.model.submit(self.world, count, gates)
        self.compare(gates)

    def close(self) -> None:
        self.group.close()
        gates: list[Later] = []
        self.model.close(self.world, gates)
        self.compare(gates)

    def step(self, number: int) -> None:
        """From the end of all work of a task."""
        me = self.world.tasks[number]
        for unit in me.work:
            self.world.finished |= 1 << unit
        me.work, me.phase = (), TOP
        gates: list[Later] = []
        self.model.step(self.world, me, gates)
        assert VERDICTS[self.group._step(self.group._tasks[number])] == me.phase
        self.compare(gates)

    def compare(self, gates: list[Later]) -> None:
        for mine, task in zip(self.world.tasks, self.group._tasks, strict=True):
            assert task.gate.count == gates.count(mine)
            task.gate.count = 0
            assert [each.sequence for each in task.work] == list(mine.work)
            assert [each.sequence for each in task.mini] == list(mine.mini)
            assert sum(1 << page for page in task.row.range.each_page()) == mine.shown & ~SHOWN
            assert (task.row in self.group._table) == mine.has_row
            assert task.counter.left == mine.left
            counter = task.row.counter
            assert (NOBODY if counter is None else self.world.tasks[counter.owner].work[0]) == mine.waiter
        assert [each.sequence for each in self.group._main] == list(self.world.main)
        assert [each.number for each in self.group._idle] == [self.world.tasks.index(each) for each in self.world.idle]
        for each in gates:
            each.phase = BEGINS if each.phase == WAITS else TOP

    def walk(self, walk: random.Random) -> None:
        """One step after another, until nothing is left to do; work lasts long, and closing is late."""
        while choices := self.choices():
            soon = [each for each in choices if not self.is_late(*each)]
            step, *arguments = walk.choice(soon if soon and walk.random() < 0.9 else choices)
            step(*arguments)

    def is_late(self, step, number: int = 0) -> bool:
        return step == self.close or (step == self.step and bool(self.world.tasks[number].work))

    def choices(self) -> list[tuple]:
        w = self.world
        choices = [(self.step, each) for each, task in enumerate(w.tasks) if task.phase in (TOP, BEGINS)]
        if w.arrived < self.graph.units:
            return [*choices, *((self.submit, each) for each in range(1, self.graph.units - w.arrived + 1))]
        return choices if w.closed else [*choices, (self.close,)]


def _footprint(mask: int) -> Footprint:
    return Footprint.of_runs([(page, 1) for page in range(mask.bit_length()) if mask >> page & 1])


def random_graph(walk: random.Random) -> Graph:
    """Many have two units that begin at once, more that overlap the first, and one that supersedes both their tasks."""
    units = walk.randint(3, 10)
    bridge = walk.randrange(2, units)
    narrow = walk.choice([0.05, 0.15, 0.4])
    shares = {pair: 0.8 if pair[0] == 0 else narrow for pair in pairs(units)}
    shares |= {(0, 1): 0.1, (0, bridge): 0.9, (1, bridge): 0.9}
    return Graph(units, [pair for pair, share in shares.items() if walk.random() < share])


def test_the_model_does_what_the_code_does():
    seen: Counter[str] = Counter()
    for seed in range(1000):
        walk = random.Random(seed)
        pair = Pair(random_graph(walk), walk.choice([1, 2, 3, 4, 4, 5, 6]), walk.choice([1, 2, *[MINI_UNITS_MAX] * 3]))
        pair.walk(walk)
        assert all(task.phase == ENDED for task in pair.world.tasks)
        assert pair.world.finished == (1 << pair.graph.units) - 1
        seen += pair.model.seen
    assert seen["handed out to 1"] and seen["handed out to 2"] and seen["handed out, and some kept for later"]
    assert seen["several parts, and no task is parked"] and seen["a leader stops at a full mini queue"]


# Larger bounds.

LARGER = {
    "5 units": (5, [2, 3, 4], {"keeps_edges": True}),
    "5 units, 5 tasks": (5, [5], {}),
    "5 units, mini queues of 1": (5, [2, 3, 4], {"mini_units_max": 1}),
    "5 units, mini queues of 2": (5, [2, 3, 4], {"mini_units_max": 2}),
    "5 units, closed at any time": (5, [4], {"closes_early": True}),
    **{f"4 units, unit {each} fails": (4, range(1, 5), {"fails": each, "keeps_edges": True}) for each in range(4)},
    **{f"5 units, unit {each} fails": (5, [4], {"fails": each}) for each in range(5)},
    "4 units, fine steps": (4, range(1, 5), {"kind": FineChecker, "keeps_edges": True}),
    "5 units, fine steps": (5, [4], {"kind": FineChecker}),
    "6 units": (6, [4], {}),
}


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("name", LARGER)
def test_all_patterns(name):
    units, tasks, options = LARGER[name]
    total = check_all(graphs(units), tasks, runs_together="fails" not in options, **options)
    print(f"\n{name}, {tasks} tasks: {total}")


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_fine_steps_lead_to_nothing_new_with_four_units():
    print(f"\n4 units, coarse and fine steps, 1 to 4 tasks: {compare_steps(graphs(4), range(1, 5))}")
    print(f"\n5 units that are handed out, coarse and fine steps, 3 and 4 tasks: {compare_steps([PARTED], [3, 4])}")


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_handing_out_in_fine_steps():
    """A task with three units on its mini queue is superseded; they overlap each other, and 1, in all ways."""
    base, more = [(0, 2), (0, 3), (0, 4), (0, 5), (1, 5)], [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    cases = [
        Graph(6, [*base, *(pair for bit, pair in enumerate(more) if mask >> bit & 1)]) for mask in range(1 << len(more))
    ]
    total = check_all(cases, [4], FineChecker)
    assert total.seen["handed out to 1"] and total.seen["handed out, and some kept for later"]
    print(f"\n6 units around a superseded task, fine steps, 4 tasks: {total}")
