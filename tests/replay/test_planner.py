"""What is chosen from what the first writes took: a table, no clock, no threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mirrortool.errors import UsageError
from mirrortool.replay.engine import Plan, UnitTime
from mirrortool.replay.planner import DIRECT_GAIN, THREADS_DIRECT, TRIALS_MAX, UNITS_TIMED, Trial, Wanted, choose

MIB = 1 << 20
PAGE_CACHE = UnitTime(seconds=100e-6, processor_seconds=95e-6, calls=1, pages=32)
SCATTERED = UnitTime(seconds=32 * 6e-6, processor_seconds=32 * 5e-6, calls=32, pages=32)
MILLISECOND = UnitTime(seconds=32 * 1.06e-3, processor_seconds=32 * 30e-6, calls=32, pages=32)
QUARTER_MILLISECOND = UnitTime(seconds=260e-6, processor_seconds=20e-6, calls=1, pages=1)
TEN_MILLISECONDS = UnitTime(seconds=10e-3, processor_seconds=30e-6, calls=1, pages=8)
CONTENDED = UnitTime(seconds=300e-6, processor_seconds=95e-6, calls=1, pages=32)
"""A write of the page cache whose processor somebody else used for twice as long."""

FEW = Plan(groups=1, tasks=2)


def short(units: Sequence[UnitTime], *, plan: Plan = FEW, write: float = 1e-3, sync: float = 0.0) -> Trial:
    return Trial(plan, True, MIB, write, sync, tuple(units))


def compared(io: str, mib_per_second: float) -> Trial:
    return Trial(replace(FEW, io=io), False, 4 * MIB, 4 / mib_per_second * 0.75, 4 / mib_per_second * 0.25, ())


def chosen(wanted: Wanted, *trials: Trial, can_be_direct: bool = False) -> Plan:
    choice = choose(wanted, trials, can_be_direct=can_be_direct)
    assert choice.is_final
    return choice.plan


# Before anything is known.


def test_first_plan_is_for_the_page_cache_and_is_timed_in_short_windows() -> None:
    choice = choose(Wanted(), (), can_be_direct=True)
    assert choice.plan == FEW
    assert (choice.is_final, choice.is_short) == (False, True)
    assert str(choice) == "1 group x 2 tasks, batches, buffered: the preset; too little was written to time it"


def test_what_is_given_whole_is_not_timed() -> None:
    plan = Plan("space", 3, 5, "op", 12345, "direct")
    choice = choose(Wanted.exactly(plan), (), can_be_direct=True)
    assert (choice.plan, choice.is_final) == (plan, True)
    assert str(choice) == "3 groups x 5 tasks, single operations, direct: as given"


def test_few_units_decide_nothing() -> None:
    trials = [short([MILLISECOND] * (UNITS_TIMED - 1))]
    choice = choose(Wanted(), trials, can_be_direct=False)
    assert (choice.plan, choice.is_final, choice.is_short) == (FEW, False, True)


def test_windows_without_enough_units_are_not_timed_for_ever() -> None:
    assert chosen(Wanted(), *[short([]) for _ in range(TRIALS_MAX)]) == FEW


# Where writes end in the page cache, and where they wait.


@pytest.mark.parametrize(
    ("unit", "threads"),
    [
        (PAGE_CACHE, 2),
        (SCATTERED, 2),
        (CONTENDED, 2),
        (QUARTER_MILLISECOND, 32),
        (MILLISECOND, 64),
        (TEN_MILLISECONDS, 64),
        (UnitTime(10e-3, 4e-3, 1, 512), 2),
    ],
    ids=["page cache", "scattered", "contended", "quarter of a millisecond", "a millisecond", "ten", "busy"],
)
def test_tasks_are_as_many_as_the_waiting_can_hide(unit: UnitTime, threads: int) -> None:
    plan = chosen(Wanted(), short([unit] * UNITS_TIMED))
    assert (plan.threads, plan.unit, plan.io) == (threads, "batch", "buffered")


def test_whoever_says_how_groups_share_the_addresses_gets_groups() -> None:
    plan = Wanted(ranges="space").few("buffered")
    assert (plan.groups, plan.tasks) == (2, 2)


def test_some_writes_that_were_held_up_decide_nothing() -> None:
    held_up = UnitTime(50e-3, 95e-6, 1, 32)
    assert chosen(Wanted(), short([PAGE_CACHE] * 8 + [held_up] * 7)) == FEW


def test_some_writes_that_hit_a_cache_decide_nothing() -> None:
    assert chosen(Wanted(), short([PAGE_CACHE] * 7 + [MILLISECOND] * 8)).threads == 64


def test_units_of_several_windows_count_together() -> None:
    assert chosen(Wanted(), *[short([MILLISECOND])] * UNITS_TIMED).threads == 64


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (PAGE_CACHE, "1 group x 2 tasks, batches, buffered: the store takes 3.1 us a page (in the page cache)"),
        (MILLISECOND, "4 groups x 16 tasks, batches, buffered: a write takes 1.1 ms, mostly waiting"),
    ],
)
def test_choice_is_told_with_its_reason(unit: UnitTime, text: str) -> None:
    assert str(choose(Wanted(), [short([unit] * 8)], can_be_direct=False)) == text


# What is given stays, and the rest is chosen around it.


@pytest.mark.parametrize("unit", [PAGE_CACHE, MILLISECOND])
@pytest.mark.parametrize("groups", [None, 1, 3, 256])
@pytest.mark.parametrize("tasks", [None, 1, 5, 1024])
@pytest.mark.parametrize("io", [None, "buffered", "direct"])
def test_given_option_is_never_overridden(
    unit: UnitTime, groups: int | None, tasks: int | None, io: str | None
) -> None:
    wanted = Wanted("equal", groups, tasks, "op", io, 777)
    if (groups or 1) * (tasks or 1) > 4096:
        with pytest.raises(UsageError):
            wanted.check()
        return
    wanted.check()
    for trials in ((), (short([unit] * 8),)):
        plan = choose(wanted, trials, can_be_direct=False).plan
        plan.check()
        assert (plan.ranges, plan.unit, plan.in_flight_bytes) == ("equal", "op", 777)
        assert plan.groups == (groups or plan.groups) and plan.tasks == (tasks or plan.tasks)
        assert plan.io == (io or "buffered")


@pytest.mark.parametrize(
    ("wanted", "shape"),
    [
        (Wanted(groups=1), (1, 64)),
        (Wanted(groups=16), (16, 4)),
        (Wanted(tasks=32), (2, 32)),
        (Wanted(tasks=1), (4, 1)),
        (Wanted(tasks=100), (1, 100)),
    ],
)
def test_groups_and_tasks_are_chosen_around_each_other(wanted: Wanted, shape: tuple[int, int]) -> None:
    plan = chosen(wanted, short([MILLISECOND] * 8))
    assert (plan.groups, plan.tasks) == shape


@pytest.mark.parametrize("wanted", [Wanted(groups=0), Wanted(tasks=0), Wanted(unit="page"), Wanted(io="mapped")])
def test_what_cannot_be_carried_out_is_refused(wanted: Wanted) -> None:
    with pytest.raises(UsageError):
        wanted.check()


def test_direct_writes_begin_with_many_tasks_because_each_waits_for_the_device() -> None:
    choice = choose(Wanted(io="direct"), (), can_be_direct=True)
    assert (choice.plan.threads, choice.plan.io, choice.is_final) == (THREADS_DIRECT, "direct", False)
    plan = chosen(Wanted(io="direct"), short([PAGE_CACHE] * 8, plan=choice.plan), can_be_direct=True)
    assert plan == choice.plan


# The page cache against O_DIRECT.


def test_ways_to_the_disk_are_compared_one_after_the_other_where_making_durable_is_dear() -> None:
    first = short([PAGE_CACHE] * 8, sync=5e-3)
    choice = choose(Wanted(), [first], can_be_direct=True)
    assert (choice.plan, choice.is_final, choice.is_short) == (FEW, False, False)
    choice = choose(Wanted(), [first, compared("buffered", 200)], can_be_direct=True)
    assert (choice.plan.io, choice.plan.threads, choice.is_final) == ("direct", THREADS_DIRECT, False)


@pytest.mark.parametrize(
    ("buffered", "direct", "io"),
    [(200, 400, "direct"), (200, 50, "buffered"), (200, 200 * DIRECT_GAIN - 1, "buffered"), (1, 1, "buffered")],
)
def test_the_faster_way_to_the_disk_is_kept(buffered: float, direct: float, io: str) -> None:
    trials = [short([PAGE_CACHE] * 8, sync=5e-3), compared("buffered", buffered), compared("direct", direct)]
    choice = choose(Wanted(), trials, can_be_direct=True)
    assert (choice.plan.io, choice.is_final) == (io, True)
    assert f"{buffered:.0f} MiB/s buffered and {direct:.0f} MiB/s direct" in str(choice)


@pytest.mark.parametrize(
    ("wanted", "sync", "can_be_direct"),
    [(Wanted(), 0.0, True), (Wanted(), 5e-3, False), (Wanted(io="buffered"), 5e-3, True)],
    ids=["no disk", "not possible", "given"],
)
def test_there_is_no_question_of_direct_writes(wanted: Wanted, sync: float, can_be_direct: bool) -> None:
    assert chosen(wanted, short([PAGE_CACHE] * 8, sync=sync), can_be_direct=can_be_direct) == FEW


def test_store_that_waits_is_not_written_past_the_cache_unless_that_is_given() -> None:
    """As a network file system: what waits there is not the disk."""
    assert chosen(Wanted(), short([MILLISECOND] * 8, sync=1.0), can_be_direct=True).io == "buffered"
    assert chosen(Wanted(io="direct"), short([MILLISECOND] * 8), can_be_direct=True).io == "direct"
