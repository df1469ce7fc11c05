"""The sums of a trace are those of its records."""

from __future__ import annotations

import pytest

from mirrortool.lsn import Lsn
from mirrortool.operation import Kind
from mirrortool.replay.tracing import Drained, Ended, InlineRun, Post, TraceRecord
from mirrortool.replay.writeunit import How
from mirrortool.trace.check import Checker
from mirrortool.trace.summary import PlanKey, Summary, count_tasks
from tests.trace.records import STARTED, plan, unit


def summed(*records: TraceRecord) -> Summary:
    found, summary = [], Summary()
    checker = Checker(found.append)
    for record in records:
        replay, figures = checker.replays, checker.add(record)
        if figures:
            summary.add_section(replay, figures)
        summary.add(record)
    if figures := checker.finish():
        summary.add_section(checker.replays, figures)
    summary.finish()
    assert not found
    return summary


def test_ways_and_bytes_are_counted():
    summary = summed(
        STARTED,
        plan(),
        unit(0, 10, 20, (0, 1), task=1, payload_bytes=100),
        unit(1, 10, 30, (1, 1), task=2, given_back=2),
        unit(2, 40, 50, (0, 2), task=3, how=How.COUNTER_WAIT, wait_ns=15, posts=(Post(1, 21), Post(2, 31))),
        unit(3, 50, 60, (0, 1), task=3, how=How.MINI_QUEUE, sent_by=1, sent_ns=45, handed_out=True),
        unit(4, 60, 61, (0, 1), task=3, failed=True),
        Ended(5, 70),
    )
    assert summary.by_how == {How.DIRECT: 3, How.COUNTER_WAIT: 1, How.MINI_QUEUE: 1}
    assert (summary.units, summary.payload_bytes, summary.given_back) == (5, 100, 2)
    assert (summary.handed_out, summary.failed, summary.inline) == (1, 1, 0)
    assert summary.waiting_ns == summary.tasks[0, 3].waiting_ns == 25
    assert summary.tasks[0, 3].busy_ns == 21
    assert summary.tasks[0, 3].busy_share == pytest.approx(21 / 70)


def test_the_longest_chain_is_that_of_overlaps():
    """Units 0, 2, 4 share pages one with the next; 1 and 3 take longer, and overlap nothing."""
    summary = summed(
        STARTED,
        plan(groups=1, tasks=4),
        unit(0, 0, 10, (0, 2), task=0),
        unit(1, 0, 100, (9, 1), task=1),
        unit(2, 20, 30, (1, 2), task=2),
        unit(3, 30, 90, (8, 1), task=3),
        unit(4, 30, 40, (2, 1), task=0),
        Drained(5, 100),
        unit(5, 100, 110, (0, 9), task=0),
        unit(6, 110, 120, (5, 9), task=0),
        Ended(7, 120),
    )
    chain = summary.chain
    assert (chain.first.sequence, chain.last.sequence, chain.last.chain_units) == (0, 4, 3)
    assert (chain.last.chain_busy_ns, chain.section.units, chain.replay) == (30, 5, 1)
    assert chain.section.ideal_ns == 100  # the longest unit; all together are 190 for four tasks
    assert summary.ideal_ns == 120
    assert summary.working_ns == 120
    assert summary.busy_tasks == pytest.approx(210 / 120)


def test_ideal_is_what_all_tasks_need_together_where_nothing_overlaps():
    units = [unit(number, 0, 8, (number, 1), task=number) for number in range(4)]
    assert summed(STARTED, plan(groups=1, tasks=4), *units, Ended(4, 8)).ideal_ns == 8
    units = [unit(number, 8 * number, 8 * number + 8, (number, 1), task=0) for number in range(4)]
    assert summed(STARTED, plan(groups=1, tasks=4), *units, Ended(4, 32)).ideal_ns == 8


def test_time_goes_to_the_plan_in_force():
    """Also that between two plans; what is between two replays goes to none."""
    summary = summed(
        STARTED,
        plan(0, groups=1, tasks=1),
        unit(0, 0, 50, task=0),
        Drained(1, 60),
        plan(60, groups=1, tasks=2),
        unit(1, 60, 80, task=1),
        InlineRun(2, Lsn(1), Kind.ZERO, 0, 1, 85, 90),
        Ended(3, 100),
        STARTED,
        plan(1000, groups=1, tasks=1),
        unit(0, 1000, 1010, task=0),
    )
    assert summary.plans == {
        PlanKey("equal", 1, 1, "op", "buffered"): 2,
        PlanKey("equal", 1, 2, "op", "buffered"): 1,
    }
    assert summary.elapsed_ns == 110
    assert summary.working_ns == 50 + 20 + 5 + 10
    assert (summary.tasks[0, 0].planned_ns, summary.tasks[0, 1].planned_ns) == (110, 40)
    assert (summary.inline, summary.sections) == (1, 3)


def test_of_predecessors_of_chains_as_long_the_one_that_took_longer():
    summary = summed(
        STARTED,
        plan(),
        unit(0, 0, 1, (0, 1)),
        unit(1, 0, 9, (1, 1)),
        unit(2, 9, 10, (0, 2)),
        unit(3, 0, 20, (2, 1)),
        unit(4, 20, 21, (2, 1)),
        Ended(5, 30),
    )
    assert (summary.chain.first.sequence, summary.chain.last.sequence, summary.chain.last.chain) == (3, 4, (2, 21))
    summary = summed(
        STARTED, plan(), unit(0, 0, 1, (0, 1)), unit(1, 0, 9, (1, 1)), unit(2, 9, 10, (0, 2)), Ended(3, 30)
    )
    assert (summary.chain.first.sequence, summary.chain.last.chain) == (1, (2, 10))


def test_of_chains_that_are_as_long_the_one_that_took_longer():
    summary = summed(
        STARTED, plan(), unit(0, 0, 1), unit(1, 1, 2), Drained(2, 5), unit(2, 5, 9), unit(3, 9, 10), Ended(4, 10)
    )
    assert (summary.chain.first.sequence, summary.chain.last.chain_busy_ns) == (2, 5)


def test_nothing_is_summed_of_nothing():
    summary = summed(STARTED, plan(), Ended(0, 7))
    assert (summary.units, summary.busy_tasks, summary.chain, summary.elapsed_ns) == (0, 0.0, None, 7)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [([], 0), ([(2, 3)], 6), ([(2, 3), (2, 3)], 6), ([(1, 8), (4, 2), (2, 2)], 14), ([(1, 1), (3, 5)], 15)],
)
def test_tasks_of_several_plans_are_counted_once(sizes, count):
    assert count_tasks(sizes) == count
