"""Task groups under every order of events that the scheduler can think of, and on real threads.

The harness checks order, exclusion, exactly once, the invariants and the end state in every run; most tests here only
choose what to run. A failure prints the case and the choices that replay it: `run_case(case, Script(choices))`.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
from dataclasses import replace

import pytest

from mirrortool.errors import ExhaustedError
from mirrortool.replay.inflight import Cancelled, InFlight
from mirrortool.replay.taskgroup import GroupStatistics, TaskGroup
from mirrortool.replay.tasktable import RowSnapshot
from mirrortool.replay.threads import Threads
from mirrortool.replay.writeunit import Footprint, WriteUnit
from tests.fakes.literalgroup import LiteralGroup
from tests.fakes.scheduler import DeadlockError, Scheduler, Script, Walk, explore
from tests.replay import mutants
from tests.replay.harness import Bench, Case, footprint_of, random_case, run_case
from tests.replay.scenarios import SCENARIOS, WHOLE, lingering, with_tasks

EACH_SCENARIO = pytest.mark.parametrize("name", SCENARIOS)
# These have thousands of orders even with one pre-emption; only the soak goes through them.
LONG = {"credit for one", "two groups", "spanning units, cut in two"}


# The scenarios.


@EACH_SCENARIO
def test_scenario_in_random_orders(name):
    scenario = SCENARIOS[name]
    seen = set()
    for seed in range(150):
        seen.update(run_case(lingering(scenario.case, seed), Walk(seed)).history.how.values())
    assert scenario.how <= seen, "the scenario did not get where it leads"


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - LONG))
def test_scenario_of_two_tasks_in_every_order_with_one_preemption(name):
    case = with_tasks(SCENARIOS[name].case, 2)
    _, was_all = explore(lambda chooser: _ignore(run_case(case, chooser)), preemptions=1, runs_max=1000)
    assert was_all


@EACH_SCENARIO
def test_scenario_of_three_tasks_in_orders_with_one_preemption(name):
    case = with_tasks(SCENARIOS[name].case, 3)
    explore(lambda chooser: _ignore(run_case(case, chooser)), preemptions=1, runs_max=400)


@EACH_SCENARIO
def test_scenario_with_any_number_of_tasks(name):
    case = SCENARIOS[name].case
    for tasks, seed in itertools.product(range(1, 6), range(8)):
        run_case(lingering(with_tasks(case, tasks), seed), Walk(seed))


@EACH_SCENARIO
def test_scenario_drained_at_every_step(name):
    case = SCENARIOS[name].case
    for drain, seed in itertools.product(range(1, len(case.ops)), range(6)):
        run_case(lingering(replace(case, drains=frozenset({drain})), seed), Walk(seed))


@EACH_SCENARIO
def test_scenario_closed_without_draining(name):
    case = replace(SCENARIOS[name].case, drains_last=False)
    for seed in range(24):
        run_case(lingering(case, seed), Walk(seed))


@EACH_SCENARIO
def test_scenario_with_credit_for_one_unit(name):
    case = replace(SCENARIOS[name].case, credits=1)
    for seed in range(8):
        run_case(case, Walk(seed))


@EACH_SCENARIO
def test_no_successor_of_a_failed_unit_is_applied(name):
    case = SCENARIOS[name].case
    for fails, seed in itertools.product(range(len(case.ops)), range(10)):
        run_case(lingering(replace(case, fails=fails), seed), Walk(seed))


# Random units.


@pytest.mark.parametrize("block", range(8))
def test_random_units_end_as_serial_replay_would(block):
    """16,000 random cases in random orders, all in all; in blocks, so that two processes share them.

    Ten times as many as it takes until the last of the wrong groups below is found out by such cases alone.
    """
    for seed in range(block * 2000, block * 2000 + 2000):
        run_case(random_case(seed), Walk(seed))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_random_units_end_as_serial_replay_would_a_million_times():
    for seed in range(16_000, 1_016_000):
        run_case(random_case(seed), Walk(seed))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@EACH_SCENARIO
def test_scenario_in_every_order_with_two_preemptions(name):
    case = SCENARIOS[name].case
    explore(lambda chooser: _ignore(run_case(case, chooser)), preemptions=2, runs_max=20_000)


# A second opinion.


def test_fig_11_to_the_letter_ends_as_serial_replay_would():
    for seed in range(1000):
        run_case(replace(random_case(seed), fails=None), Walk(seed), LiteralGroup)


@pytest.mark.parametrize("kind", [TaskGroup, LiteralGroup])
def test_units_run_together_unless_overlaps_order_them(kind):
    for seed in range(40):
        case = replace(random_case(seed), groups=1, tasks=4, credits=1000, drains=frozenset(), fails=None)
        case = replace(case, ops=[[page % 6 for page in op] for op in case.ops[:4]])
        for pair in _unordered_pairs(case.ops):
            assert _run_together(replace(case, lingers=frozenset(pair)), pair, kind), f"{pair} of {case.ops}"


def _run_together(case: Case, pair: tuple[int, int], kind) -> bool:
    return any(pair in run_case(case, Walk(seed), kind).history.together for seed in range(60))


def _unordered_pairs(ops) -> set[tuple[int, int]]:
    """Those that no chain of overlaps, from the earlier to the later, connects."""
    after = [{each} for each in range(len(ops))]
    for late in range(len(ops)):
        for early in range(late):
            if set(ops[early]) & set(ops[late]):
                after[late] |= after[early]
    return {(early, late) for late in range(len(ops)) for early in range(late) if early not in after[late]}


# Parallelism after a wide unit, which version S has and the figure has not.


def _together_after_wide(seed: int, kind=TaskGroup) -> set[tuple[int, int]]:
    case = Case([WHOLE, [0], [1], [2], [3]], tasks=4, lingers=frozenset(range(5)))
    return run_case(case, Walk(seed), kind).history.together


def test_a_wide_unit_does_not_capture_its_successors():
    for seed in range(50):
        assert _together_after_wide(seed) == set(itertools.combinations(range(1, 5), 2))
        assert _together_after_wide(seed, mutants.NeverSplits) == set()


# Short mini queues: a leader that finds one full stops leading.


class Short(TaskGroup):
    mini_units_max = 1


@EACH_SCENARIO
def test_scenario_with_mini_queues_of_one_unit(name):
    for tasks, seed in itertools.product((1, 2, 3, 4), range(24)):
        case = with_tasks(SCENARIOS[name].case, tasks)
        run_case(replace(lingering(case, seed), drains_last=seed % 2 == 0), Walk(seed), Short)


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - LONG))
def test_scenario_with_mini_queues_of_one_unit_in_orders_with_one_preemption(name):
    case = with_tasks(SCENARIOS[name].case, 3)
    explore(lambda chooser: _ignore(run_case(case, chooser, Short)), preemptions=1, runs_max=200)


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_random_units_with_short_mini_queues_end_as_serial_replay_would(longest):
    kind = type("Short", (TaskGroup,), {"mini_units_max": longest})
    for seed in range(200_000, 202_000):
        run_case(random_case(seed), Walk(seed), kind)


def test_a_wide_unit_moves_no_more_than_its_mini_queue_holds():
    """Or the work of moving units to it and back would grow with the square of the units in flight."""
    kind = type("Short", (TaskGroup,), {"mini_units_max": 2})
    for seed in range(50):
        case = Case([WHOLE, [0], [1], [2], [3], [4], [5]], tasks=3, lingers=frozenset(range(7)))
        (group,) = run_case(case, Walk(seed), kind).groups
        assert sum(task.given_back for task in group._tasks) <= 1


# Wrong groups must be found out.

WRONG = [
    (mutants.NoSecondLook, "all wait", "split, order of those given back"),
    (mutants.SendsAfterUnlocking, "runs before|all wait", "superseded, drains, posts, continues"),
    (mutants.DropsMainLock, "runs before", "two bridges"),
    (mutants.MatchesWhatIncludes, "runs before|run together", "chain"),
    (mutants.DoesNotGrow, "runs before", "chain grows the range"),
    (mutants.DoesNotClear, "all wait", "waiter superseded"),
    (mutants.ShowsOwnOnly, "runs before", "bridge, then a part"),
    (mutants.PostsUndrained, "runs before", "superseded with two to drain"),
    (mutants.PostsOutside, "posts once", "two bridges"),
    (mutants.KeepsPointer, "posts once|runs before", "waiter superseded"),
    (mutants.BoundsMiniQueues, "all wait", "identical"),
    (mutants.SplitsPastGiven, "runs before", "split"),
    (mutants.SplitsSuperseded, "runs before", "superseded with two to drain"),
    (mutants.GivesBackLast, "runs before", "split, behind it the same page"),
    (mutants.GivesBackReversed, "runs before", "split, order of those given back"),
    (mutants.ShowsTooLittle, "runs before|run together", "split, then a unit at the edge"),
    (mutants.HandsOutUncounted, "runs before|posts once", "superseded with parts to hand out"),
    (mutants.HandsOutOverlapping, "runs before|run together", "superseded with parts to hand out"),
    (mutants.ForgetsWhatItCannotHandOut, "runs before", "superseded with parts to hand out"),
    (mutants.WakesNobody, "all wait", "one task"),
    (mutants.LeavesSleepers, "all wait", "identical"),
    (mutants.FinishesEarly, "not the first", "one task"),
]


@pytest.mark.parametrize(("kind", "effect", "name"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_wrong_group_is_found_out(kind, effect, name):
    _expect_found_out(effect, [lingering(SCENARIOS[name].case, seed) for seed in range(128)], kind, invariants=False)


@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        (mutants.DiesOfErrors, "wait|still pending"),
        (mutants.StoresErrorsLate, "runs before|not the first"),
        (mutants.GoesOnAfterErrors, "runs before"),
    ],
)
def test_wrong_treatment_of_errors_is_found_out(kind, effect):
    case = replace(SCENARIOS["chain"].case, fails=1)
    _expect_found_out(effect, [lingering(case, seed) for seed in range(128)], kind)


def test_ending_before_the_queue_is_empty_is_found_out():
    case = replace(SCENARIOS["chain"].case, drains_last=False)
    _expect_found_out("still pending", [case] * 64, mutants.EndsEarly)


def test_ending_beside_a_sleeper_is_found_out():
    cases = [replace(SCENARIOS["nested"].case, tasks=3, drains_last=False)] * 256
    _expect_found_out("wait", cases, mutants.EndsBesideSleepers)


def test_a_counter_that_is_only_notified_is_found_out():
    cases = [SCENARIOS["bridge of three"].case] * 64
    _expect_found_out("wait", cases, TaskGroup, scheduler=mutants.PulsingScheduler)


def test_a_sleeper_beside_work_is_found_out():
    _expect_found_out("I7", [SCENARIOS["identical"].case] * 64, mutants.DoesNotWakeTheNext)


def _expect_found_out(effect, cases, kind, **options):
    for seed, case in enumerate(cases):
        try:
            run_case(case, Walk(seed), kind, **options)
        except AssertionError as error:
            assert re.search(effect, str(error)), "found out, but for another reason"  # noqa: PT017
            return
    pytest.fail(f"{len(cases)} runs did not tell {kind.__name__} from the real one")


# Errors.


def test_the_first_error_is_kept_with_the_number_of_its_unit():
    bench = run_case(Case([[0], [1], [0]], fails=1), Walk(0))
    assert bench.in_flight.failure.sequence == 1
    assert bench.raised is bench.in_flight.failure.error


def test_an_error_of_the_trace_stops_the_replay_too():
    class Unwritable(Bench):
        def trace(self, *_):
            raise OSError("trace")

    scheduler = Scheduler(Walk(1))
    bench = Unwritable(Case([[0]]), scheduler, TaskGroup, True)
    with pytest.raises(OSError, match="trace"):
        scheduler.run(bench.receive)


def test_a_crashed_task_does_not_leave_the_receiver_waiting():
    class Crashing(TaskGroup):
        def _claim_range(self, *_):
            raise MemoryError

    in_flight = InFlight(1 << 20)
    with Crashing(0, _ignore, in_flight, tasks=2) as group:
        group.submit([_unit(0, 0)])
        with pytest.raises(MemoryError):
            in_flight.wait_drained()
    assert in_flight.failure.sequence is None


# Starting, closing, looking.


def test_closing_twice_and_without_work():
    def main():
        group = TaskGroup(0, _ignore, InFlight(1, scheduler), tasks=3, seam=scheduler)
        group.start()
        group.close()
        group.close()

    for seed in range(50):
        scheduler = Scheduler(Walk(seed))
        scheduler.run(main)


def test_a_cancelled_receiver_leaves_and_the_admitted_units_are_applied():
    for seed in range(200):
        scheduler = Scheduler(Walk(seed))
        applied = []
        scheduler.run(lambda scheduler=scheduler, applied=applied: _cancel_meanwhile(scheduler, applied))
        assert applied == sorted(applied)


def _cancel_meanwhile(scheduler, applied):
    in_flight = InFlight(1024, scheduler)
    canceller = scheduler.spawn("canceller", in_flight.cancel)
    units = [_unit(each, 0) for each in range(6)]
    with TaskGroup(0, lambda unit: applied.append(unit.sequence), in_flight, tasks=2, seam=scheduler) as group:
        try:
            group.submit(units)
            in_flight.wait_drained()
            assert len(applied) == 6
        except Cancelled:
            pass
    canceller.join()
    assert in_flight.is_drained()
    assert group.statistics().units == len(applied)


def test_threads_that_cannot_be_started():
    class Few(Threads):
        left = 2

        def spawn(self, name, function):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("can't start new thread")
            return super().spawn(name, function)

    before = set(threading.enumerate())
    group = TaskGroup(0, _ignore, InFlight(1), tasks=3, seam=Few())
    with pytest.raises(ExhaustedError, match="cannot start a thread"):
        group.start()
    assert set(threading.enumerate()) <= before


def test_table_and_statistics_show_a_waiter():
    """X and Y are applied, Z waits for both: the table of FIG. 10 in the middle of FIG. 11."""
    seen = []

    def look(unit: WriteUnit) -> None:
        if unit.sequence == 0:
            scheduler.linger()
            seen.append((group.table(), group.statistics()))
        else:
            scheduler.linger()

    def main():
        with group:
            group.submit([_unit(0, 0), _unit(1, 2), WriteUnit(2, Footprint(0, 3)), _unit(3, 1)])
            in_flight.wait_drained()

    scheduler = Scheduler(Script())
    in_flight = InFlight(1 << 20, scheduler)
    group = TaskGroup(7, look, in_flight, tasks=3, seam=scheduler)
    scheduler.run(main)
    [(table, statistics)] = seen
    waiter = next(row for row in table if row.end)
    assert (waiter.first, waiter.end, waiter.counter, waiter.waits_for) == (0, 3, None, 2)
    others = [RowSnapshot(task, 0, 0, waiter.task, 0) for task in range(3) if task != waiter.task]
    assert [row for row in table if row is not waiter] == others
    assert statistics == GroupStatistics(
        number=7,
        tasks=3,
        active=3,
        parked=0,
        main_queue=1,
        mini_queues=0,
        units=0,
        payload_bytes=0,
        direct=2,
        delegated=0,
        waited=1,
        given_back=0,
    )


def test_runs_of_the_scheduler_can_be_replayed():
    walk = Walk(5)
    first = run_case(random_case(5), walk)
    second = run_case(random_case(5), Script(walk.choices))
    assert first.history == second.history


def test_the_scheduler_finds_a_deadlock_of_two_locks():
    ends = []

    def run(chooser):
        scheduler = Scheduler(chooser)
        left, right = scheduler.lock(), scheduler.lock()

        def main():
            scheduler.spawn("other", lambda: _take(right, left))
            _take(left, right)

        try:
            scheduler.run(main)
            ends.append("well")
        except DeadlockError:
            ends.append("deadlock")

    assert explore(run, preemptions=1, runs_max=100) == (len(ends), True)
    assert set(ends) == {"well", "deadlock"}
    ends.clear()
    explore(run, preemptions=0, runs_max=100)
    assert set(ends) == {"well"}


def _take(first, second):
    with first, second:
        pass


# Real threads.


class PageStore:
    """Notices two writers on a page, and remembers their order. Without a lock: exclusion is what it checks."""

    def __init__(self, pages: int) -> None:
        self.busy = [False] * pages
        self.order: list[list[int]] = [[] for _ in range(pages)]

    def apply(self, unit: WriteUnit) -> None:
        pages = list(unit.footprint.each_page())
        for page in pages:
            assert not self.busy[page], f"two units on page {page}"
            self.busy[page] = True
        for page in pages:
            self.order[page].append(unit.sequence)
            self.busy[page] = False


@pytest.fixture
def frequent_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize(("tasks", "credits"), [(1, 64), (2, 8), (4, 1024), (12, 100)])
def test_real_threads_end_as_serial_replay_would(tasks, credits):
    units = [WriteUnit(each, footprint_of(op)) for each, op in enumerate(_many_ops(4000))]
    store = PageStore(512)
    in_flight = InFlight(credits * 512)
    with (
        TaskGroup(0, store.apply, in_flight, tasks=tasks) as low,
        TaskGroup(1, store.apply, in_flight, tasks=tasks) as high,
    ):
        for start in range(0, len(units), 50):
            batch = units[start : start + 50]
            low.submit([unit for unit in batch if unit.footprint.first < 256])
            high.submit([unit for unit in batch if unit.footprint.first >= 256])
            if start % 1000 == 0:
                in_flight.wait_drained()
                assert sum(map(len, store.order)) == sum(unit.footprint.page_count() for unit in units[: start + 50])
        in_flight.wait_drained()
    serial = PageStore(512)
    for unit in units:
        serial.apply(unit)
    assert store.order == serial.order
    assert low.statistics().units + high.statistics().units == len(units)


def _many_ops(count: int) -> list[list[int]]:
    """Of all kinds, none across page 256."""
    cases = map(random_case, itertools.count())
    ops = ([page % 64 for page in op] for case in cases for op in case.ops)
    places = itertools.cycle([0, 256, 64, 300])
    return [[place + page for page in op] for place, op in itertools.islice(zip(places, ops), count)]  # noqa: B905


def _unit(sequence: int, page: int) -> WriteUnit:
    return WriteUnit(sequence, Footprint(page, page + 1))


def _ignore(_: object) -> None:
    pass
