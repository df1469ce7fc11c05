"""Runs a list of units through task groups under the scheduler, and checks all that must hold on the way.

Checked at each step: the invariants; that a unit begins once, after every earlier unit on its pages was applied; that
two which overlap are never applied together. At each drain and at the end: that each page saw its units in the
order of serial replay, and that nothing is left.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from mirrortool.replay.inflight import InFlight
from mirrortool.replay.taskgroup import TaskGroup
from mirrortool.replay.tracing import UnitRun
from mirrortool.replay.writeunit import UNIT_COST_BYTES, Footprint, WriteUnit
from tests.fakes.invariants import check_invariants, check_quiet
from tests.fakes.literalgroup import LiteralGroup
from tests.fakes.scheduler import Chooser, Scheduler

Pages = Sequence[int]
PAGES_A_GROUP = 64


class BoomError(Exception):
    """What a store raises in these tests."""


@dataclass(frozen=True)
class Case:
    """What to run.

    Attributes:
        ops: the pages of each unit, in arrival order. Pages of group g are PAGES_A_GROUP * g and up.
        credits: units in flight.
        batch: units submitted together.
        drains: indices of units before which the receiver drains.
        fails: index of the unit that cannot be applied.
        drains_last: whether the receiver drains before it closes the groups.
        lingers: indices of units whose application lasts as long as any other thread has something to do.
    """

    ops: Sequence[Pages]
    tasks: int = 2
    groups: int = 1
    credits: int = 1000
    batch: int = 1000
    drains: frozenset[int] = frozenset()
    fails: int | None = None
    drains_last: bool = True
    lingers: frozenset[int] = frozenset()


def footprint_of(pages: Pages) -> Footprint:
    """Of any pages, in any order."""
    return Footprint.of_runs([(page, 1) for page in sorted(set(pages))])


@dataclass
class History:
    """What happened, and the checks of what may not."""

    ops: list[frozenset[int]]
    begun: set[int] = field(default_factory=set)
    applied: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    together: set[tuple[int, int]] = field(default_factory=set)
    order: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    how: dict[int, str] = field(default_factory=dict)

    def begin(self, unit: WriteUnit) -> None:
        """A unit is about to be applied."""
        me = unit.sequence
        assert me not in self.begun, f"unit {me} is applied twice"
        for earlier in range(me):
            overlap = self.ops[earlier] & self.ops[me]
            assert not overlap or earlier in self.applied, f"unit {me} runs before unit {earlier} was applied"
        self.begun.add(me)
        for other in self.running:
            assert not self.ops[other] & self.ops[me], f"units {other} and {me} run together"
            self.together.add((min(other, me), max(other, me)))
        self.running.add(me)

    def end(self, unit: WriteUnit) -> None:
        """A unit was applied."""
        for page in self.ops[unit.sequence]:
            self.order[page].append(unit.sequence)
        self.applied.add(unit.sequence)

    def check_serial(self, count: int) -> None:
        """Exactly the first `count` units were applied, page by page as serial replay would."""
        assert self.applied == set(range(count)), f"not the first {count} units were applied: {sorted(self.applied)}"
        serial = defaultdict(list)
        for sequence in range(count):
            for page in self.ops[sequence]:
                serial[page].append(sequence)
        assert self.order == serial, "a page saw its units in another order"


class Bench:
    """One run of a case."""

    def __init__(self, case: Case, scheduler: Scheduler, group: type[Any], invariants: bool) -> None:
        self.case = case
        self.scheduler = scheduler
        self._invariants = invariants
        self.history = History([frozenset(op) for op in case.ops])
        self.in_flight = InFlight(case.credits * UNIT_COST_BYTES, scheduler)
        self.units = [WriteUnit(each, footprint_of(op)) for each, op in enumerate(case.ops)]
        self.groups = [self._make(group, each) for each in range(case.groups)]
        self.raised: BaseException | None = None

    def _make(self, kind: type[Any], number: int) -> Any:
        if kind is LiteralGroup:
            return LiteralGroup(number, self.apply, self.in_flight, tasks=self.case.tasks, seam=self.scheduler)
        group = kind(number, self.apply, self.in_flight, tasks=self.case.tasks, seam=self.scheduler, tracer=self.trace)
        if self._invariants:
            group._lock.on_release = lambda: check_invariants(group, self.history.finished)
        return group

    def guarded(self, check: Callable[..., None], *arguments: object) -> None:
        """A failed check ends the run; the code under test must not treat it as an error of the store."""
        try:
            check(*arguments)
        except AssertionError as error:
            self.scheduler.fail(error)

    def apply(self, unit: WriteUnit) -> None:
        """The store."""
        self.guarded(self.history.begin, unit)
        try:
            self._take_time(unit)
            if unit.sequence == self.case.fails:
                raise BoomError(unit.sequence)
            self.guarded(self.history.end, unit)
            self.scheduler.point()
        finally:
            self.history.running.discard(unit.sequence)
            self.history.finished.add(unit.sequence)

    def _take_time(self, unit: WriteUnit) -> None:
        if unit.sequence in self.case.lingers:
            self.scheduler.linger()
        else:
            self.scheduler.point()

    def trace(self, run: UnitRun) -> None:
        """A Tracer."""
        waited = f" {len(run.posts)}" if run.posts else ""
        self.history.how[run.sequence] = f"{run.how.value}{waited}{', given back' * (run.given_back > 0)}"

    def receive(self) -> None:
        """The receiver: submit everything, then close."""
        with ExitStack() as stack:
            for group in self.groups:
                stack.enter_context(group)
            try:
                self._submit_all()
                if self.case.drains_last:
                    self.in_flight.wait_drained()
                    self.history.check_serial(len(self.units))
            except BoomError as error:
                self.raised = error
        self._check_end()

    def _submit_all(self) -> None:
        start = 0
        for end in range(1, len(self.units) + 1):
            if end == len(self.units) or end - start == self.case.batch or end in self.case.drains:
                self._submit(self.units[start:end])
                start = end
            if end in self.case.drains:
                self.in_flight.wait_drained()
                self.history.check_serial(end)

    def _submit(self, units: list[WriteUnit]) -> None:
        for number, group in enumerate(self.groups):
            group.submit([unit for unit in units if unit.footprint.first // PAGES_A_GROUP == number])

    def _check_end(self) -> None:
        """After the groups were closed."""
        failure = self.in_flight.failure
        if failure is not None and failure.sequence is None:
            raise failure.error
        assert self.in_flight.is_drained(), "something is still pending"
        fails = self.case.fails
        if fails is None:
            assert self.raised is None
            self.history.check_serial(len(self.units))
        else:
            assert self.raised or not self.case.drains_last, "the receiver was not told of the error"
            assert failure is not None
            assert failure.sequence == fails
        for group in self.groups:
            if isinstance(group, TaskGroup):
                check_quiet(group)
                _check_statistics(group, self)


def _check_statistics(group: TaskGroup, bench: Bench) -> None:
    statistics = group.statistics()
    submitted = [unit for unit in bench.units if unit.footprint.first // PAGES_A_GROUP == group.number]
    if bench.raised is None:
        assert statistics.units == len(submitted)
    taken = statistics.direct + statistics.waited + statistics.delegated
    assert taken == statistics.units + statistics.given_back, "a unit came to a task in no way or in two"
    assert (statistics.active, statistics.main_queue, statistics.mini_queues) == (0, 0, 0)


def run_case(
    case: Case,
    chooser: Chooser,
    group: type[Any] = TaskGroup,
    *,
    scheduler: type[Scheduler] = Scheduler,
    invariants: bool = True,
) -> Bench:
    """Run it once; whatever is wrong is raised, with the choices that lead there."""
    scheduled = scheduler(chooser)
    bench = Bench(case, scheduled, group, invariants)
    try:
        scheduled.run(bench.receive)
    except Exception as error:
        error.add_note(f"{case}\nScript({getattr(chooser, 'choices', None)})")
        raise
    return bench


def random_case(seed: int) -> Case:
    """Few pages, so that units meet; all kinds of footprints, bounds and interruptions."""
    draw = random.Random(seed)
    groups = draw.choice((1, 1, 1, 2))
    ops = [_random_pages(draw, groups) for _ in range(draw.randint(1, 10))]
    return Case(
        ops,
        tasks=draw.choice((1, 2, 3, 4, 4, 5)),
        groups=groups,
        credits=draw.choice((1, 3, 1000, 1000, 1000)),
        batch=draw.choice((1, 3, 1000)),
        drains=_random_subset(draw, len(ops), draw.choice((0.0, 0.1))) - {0},
        fails=draw.randrange(len(ops)) if draw.random() < 0.15 else None,
        drains_last=draw.random() < 0.7,
        lingers=_random_subset(draw, len(ops), draw.choice((0.0, 0.3, 0.8))),
    )


def _random_subset(draw: random.Random, count: int, chance: float) -> frozenset[int]:
    return frozenset(each for each in range(count) if draw.random() < chance)


def _random_pages(draw: random.Random, groups: int) -> list[int]:
    universe = draw.choice((4, 8, 12))
    base = draw.randrange(groups) * PAGES_A_GROUP
    kind = draw.random()
    if kind < 0.1:
        return [base + page for page in range(universe)]
    if kind < 0.3:
        return [base + page for page in draw.sample(range(universe), draw.randint(1, 3))]
    first = draw.randrange(universe)
    return [base + page for page in range(first, min(universe, first + draw.choice((1, 1, 2, 3))))]
