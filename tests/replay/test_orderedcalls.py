"""Calls of any work: in order where their footprints meet, in parallel elsewhere; whatever the threads do."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial

import pytest

from mirrortool.errors import UsageError
from mirrortool.replay import orderedcalls
from mirrortool.replay.orderedcalls import ADDRESS_END, SCATTERED_MAX, STRIPE, Addresses, Keys, OrderedCalls
from mirrortool.replay.tracing import TraceRecord, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace.check import Checker
from tests.fakes.scheduler import Scheduler, Walk
from tests.fakes.waiting import wait_until


class Log:
    """What ran on each key, and whether two calls with a key in common ever ran at once."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.order: dict[Hashable, list[int]] = defaultdict(list)
        self._running: set[Hashable] = set()

    def call(self, number: int, keys: frozenset[Hashable]) -> None:
        assert self._running.isdisjoint(keys), "two calls that meet run at once"
        self._running |= keys
        self._scheduler.point()
        for key in keys:
            self.order[key].append(number)
        self._running -= keys


def some_keys(chance: random.Random) -> tuple[Keys, frozenset[Hashable]]:
    """A footprint of keys, and what it covers."""
    keys = frozenset(chance.choices("abcdefg", k=chance.choice([1, 1, 2, 3])))
    return Keys(keys), keys


def some_ranges(chance: random.Random) -> tuple[Addresses, frozenset[Hashable]]:
    """A footprint of ranges near the border of two stripes, which belong to different groups, and what it covers."""
    firsts = [STRIPE + chance.randrange(-6, 6) for _ in range(chance.choice([1, 1, 2]))]
    ranges = [(first, first + chance.randrange(1, 4)) for first in firsts]
    return Addresses.of(*ranges), frozenset(address for first, end in ranges for address in range(first, end))


@pytest.mark.parametrize("some", [some_keys, some_ranges])
@pytest.mark.parametrize("seed", range(40))
def test_calls_that_meet_run_in_order_and_one_at_a_time(
    seed: int, some: Callable[[random.Random], tuple[Keys | Addresses, frozenset[Hashable]]]
) -> None:
    chance = random.Random(seed)
    scheduler = Scheduler(Walk(seed))
    log, records = Log(scheduler), list[TraceRecord]()
    footprints = [some(chance) for _ in range(30)]

    def main() -> None:
        tasks, groups, most = chance.randrange(1, 5), chance.randrange(1, 4), chance.choice([1, 3, 100])
        with OrderedCalls(tasks=tasks, groups=groups, pending_max=most, tracer=records.append, seam=scheduler) as calls:
            for number, (footprint, covered) in enumerate(footprints):
                calls.submit(footprint, partial(log.call, number, covered))
                if chance.random() < 0.05:
                    calls.drain()
                    done = sum(map(len, log.order.values()))
                    assert done == sum(len(covered) for _, covered in footprints[: number + 1])

    scheduler.run(main)
    for key in frozenset[Hashable]().union(*(covered for _, covered in footprints)):
        assert log.order[key] == [number for number, (_, covered) in enumerate(footprints) if key in covered]
    assert_sound(records)


def assert_sound(records: list[TraceRecord]) -> None:
    violations = list[object]()
    checker = Checker(violations.append)
    for record in records:
        checker.add(record)
    checker.finish()
    assert not violations


def test_the_trace_of_a_key_value_log_shows_delegation_and_counter_waits() -> None:
    records, values, release = list[TraceRecord](), dict[str, int](), threading.Event()

    def apply(keys: str, value: int) -> None:
        release.wait(30)
        values.update(dict.fromkeys(keys, value))

    with OrderedCalls(tasks=3, tracer=records.append) as calls:
        for keys, value in [("a", 1), ("b", 2), ("a", 3), ("ab", 4), ("c", 5), ("b", 6)]:
            calls.submit(Keys.of(*keys), partial(apply, keys, value))
        wait_until(lambda: calls.statistics()[0].waited == 1)
        release.set()
    assert values == {"a": 4, "b": 6, "c": 5}
    how = {record.sequence: record.how for record in records if isinstance(record, UnitRun)}
    assert (how[0], how[1], how[2], how[3]) == (How.DIRECT, How.DIRECT, How.MINI_QUEUE, How.COUNTER_WAIT)
    assert_sound(records)


def test_ranges_that_overlap_are_ordered_and_others_are_not() -> None:
    second_is_done = threading.Event()
    order = list[str]()
    with OrderedCalls(tasks=2) as calls:
        calls.submit(Addresses.of((0, 10)), lambda: (second_is_done.wait(30), order.append("first")))
        calls.submit(Addresses.of((10, 20), (30, 40)), lambda: (order.append("second"), second_is_done.set()))
        calls.submit(Addresses.of((9, 11)), lambda: order.append("third"))
    assert order == ["second", "first", "third"]


def test_a_call_in_several_groups_runs_alone() -> None:
    running, seen = Counter[str](), list[int]()

    def other() -> None:
        running["others"] += 1
        running["others"] -= 1

    with OrderedCalls(tasks=2, groups=3) as calls:
        for stripe in range(50):
            calls.submit(Addresses.of((stripe * STRIPE, stripe * STRIPE + 5)), other)
            if stripe % 10 == 9:
                calls.submit(Addresses.of((0, 3 * STRIPE)), lambda: seen.append(running["others"]))
    assert seen == [0] * 5
    assert [each.units for each in calls.statistics()] == [17 + 5, 17, 16]


def test_the_first_error_ends_the_work_and_is_raised() -> None:
    done = list[int]()

    def fail() -> None:
        raise KeyError("the first")

    with suppress(KeyError), OrderedCalls(tasks=1) as calls:
        calls.submit(Keys.of("a"), lambda: done.append(1))
        calls.submit(Keys.of("a"), fail)
        with pytest.raises(KeyError, match="the first"):
            calls.drain()
        with pytest.raises(KeyError, match="the first"):
            calls.submit(Keys.of("a"), lambda: done.append(2))
    assert done == [1]


def test_an_error_is_raised_at_the_end_too() -> None:
    with pytest.raises(ZeroDivisionError), OrderedCalls() as calls:
        calls.submit(Keys.of("a"), lambda: 1 // 0)


def test_no_more_than_that_many_are_pending() -> None:
    release, begun = threading.Event(), threading.Event()
    with OrderedCalls(tasks=1, pending_max=2) as calls:
        calls.submit(Keys.of(1), lambda: (begun.set(), release.wait(30)))
        assert begun.wait(30)
        calls.submit(Keys.of(2), lambda: None)
        thread = threading.Thread(target=lambda: calls.submit(Keys.of(3), lambda: None))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive(), "the third waits for room"
        release.set()
        thread.join(30)
        assert not thread.is_alive()


def test_keys_of_calls_that_have_ended_take_no_memory() -> None:
    with OrderedCalls(tasks=2, pending_max=10) as calls:
        for key in range(1000):
            calls.submit(Keys.of(key, ("a tuple", key)), lambda: None)
        calls.drain()
        assert not calls._pages and not calls._users and len(calls._free) <= 40


@pytest.mark.parametrize(
    "footprint",
    [
        Keys.of(), Addresses.of(), Addresses.of((5, 5)), Addresses.of((-1, 5)), Addresses.of((0, ADDRESS_END + 1)),
        Addresses.of((0, SCATTERED_MAX), (SCATTERED_MAX + 1, SCATTERED_MAX + 2)),
    ],
)  # fmt: skip
def test_a_footprint_that_is_not_valid_is_refused_and_the_work_continues(footprint: Keys | Addresses) -> None:
    done = list[int]()
    with OrderedCalls() as calls:
        with pytest.raises(UsageError):
            calls.submit(footprint, lambda: done.append(1))
        calls.submit(Addresses.of((0, 2 * SCATTERED_MAX)), lambda: done.append(2))
    assert done == [2]


@pytest.mark.parametrize("wrong", [{"tasks": 0}, {"groups": 0}, {"groups": 5000}, {"pending_max": 0}])
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        OrderedCalls(**wrong)


def test_keys_and_addresses_never_meet() -> None:
    assert orderedcalls._pages_of([(0, ADDRESS_END)]).end <= ADDRESS_END
