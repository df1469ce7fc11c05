"""Each group that breaks the order is found out from its trace alone, and the real one never is.

The same wrong groups as in tests/replay/test_taskgroup.py, where assertions inside of the run find them; here all of
these are off, and only the lines of a trace file are looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mirrortool.replay.taskgroup import TaskGroup
from mirrortool.replay.tracing import UnitRun
from mirrortool.replay.writeunit import How
from tests.fakes.scheduler import Walk
from tests.replay import mutants
from tests.replay.harness import random_case
from tests.replay.scenarios import SCENARIOS, lingering
from tests.trace.traced import trace_of, violations_of

SEEDS = 128

FOUND = [
    (mutants.SendsAfterUnlocking, "superseded, drains, posts, continues", "order together missing"),
    (mutants.DropsMainLock, "two bridges", "order"),
    (mutants.MatchesWhatIncludes, "chain", "together order"),
    (mutants.DoesNotGrow, "chain grows the range", "order"),
    (mutants.ShowsOwnOnly, "bridge, then a part", "order together"),
    (mutants.PostsUndrained, "superseded with two to drain", "order together"),
    (mutants.KeepsPointer, "waiter superseded", "order together"),
    (mutants.SplitsPastGiven, "split", "order"),
    (mutants.SplitsSuperseded, "superseded with two to drain", "order together"),
    (mutants.GivesBackLast, "split, behind it the same page", "order"),
    (mutants.GivesBackReversed, "split, order of those given back", "order"),
    (mutants.ShowsTooLittle, "split, then a unit at the edge", "order together"),
    (mutants.HandsOutUncounted, "superseded with parts to hand out", "order together missing"),
    (mutants.HandsOutOverlapping, "superseded with parts to hand out", "order together"),
    (mutants.ForgetsWhatItCannotHandOut, "superseded with parts to hand out", "order together"),
    (mutants.FinishesEarly, "one task", "drain"),
    # An assertion of the counter ends the group before the order can break.
    (mutants.PostsOutside, "two bridges", "missing"),
]
FOUND_AFTER_ERRORS = [mutants.StoresErrorsLate, mutants.GoesOnAfterErrors]
FOUND_AT_THE_END = [(mutants.NoSecondLook, "split, order of those given back"), (mutants.EndsEarly, "chain")]
NOT_IN_QUESTION = {
    mutants.DoesNotClear: "all tasks wait for ever: nothing is applied in a wrong order",
    mutants.BoundsMiniQueues: "all tasks wait for ever",
    mutants.DiesOfErrors: "all tasks wait for ever",
    mutants.WakesNobody: "all tasks wait for ever",
    mutants.LeavesSleepers: "all tasks wait for ever",
    mutants.EndsBesideSleepers: "all tasks wait for ever",
    mutants.DoesNotWakeTheNext: "right, but slow: work lies beside tasks that sleep",
    mutants.NeverSplits: "right, but slow: a wide unit captures its successors",
}


def broken_rules(kind: type, case, seeds: int = SEEDS) -> Iterator[str]:
    """The rules that its traces show to be broken, in one run after another."""
    for seed in range(seeds):
        trace = trace_of(lingering(case, seed), Walk(seed), kind)
        yield from {violation.rule.value for violation in violations_of(trace)}


@pytest.mark.parametrize(("kind", "name", "rules"), FOUND, ids=lambda value: getattr(value, "__name__", None))
def test_a_group_that_breaks_the_order_is_found_out_from_its_trace(kind, name, rules):
    assert any(rule in rules.split() for rule in broken_rules(kind, SCENARIOS[name].case))


@pytest.mark.parametrize("kind", FOUND_AFTER_ERRORS)
def test_a_successor_of_a_failed_unit_is_found_out_from_the_trace(kind):
    assert "failed" in broken_rules(kind, replace(SCENARIOS["chain"].case, fails=1))


@pytest.mark.parametrize(("kind", "name"), FOUND_AT_THE_END)
def test_units_that_are_lost_are_found_out_from_the_trace(kind, name):
    assert "missing" in broken_rules(kind, replace(SCENARIOS[name].case, drains_last=False))


def test_every_wrong_group_is_found_out_or_breaks_no_order():
    kinds = {each for each in vars(mutants).values() if inspect.isclass(each) and issubclass(each, TaskGroup)}
    found = {kind for kind, *_ in FOUND + FOUND_AT_THE_END} | set(FOUND_AFTER_ERRORS)
    assert kinds - {TaskGroup} == found | NOT_IN_QUESTION.keys()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_real_group_is_never_found_out(name):
    assert list(broken_rules(TaskGroup, SCENARIOS[name].case, 48)) == []


def test_the_real_group_is_never_found_out_by_random_units():
    for seed in range(300):
        assert not violations_of(trace_of(random_case(seed), Walk(seed), TaskGroup)), seed


def test_a_unit_that_was_handed_out_says_so_and_its_waiter_waits_for_that_task_too():
    handed_out, waited_for = set(), set()
    for seed in range(SEEDS):
        case = lingering(SCENARIOS["superseded with parts to hand out"].case, seed)
        units = [each for each in trace_of(case, Walk(seed), TaskGroup) if isinstance(each, UnitRun)]
        by_task = {unit.task for unit in units if unit.handed_out}
        if by_task:
            (waiter,) = [unit for unit in units if unit.how is How.COUNTER_WAIT]
            assert by_task <= {post.task for post in waiter.posts}
            waited_for.add(len(waiter.posts))
        handed_out |= {unit.sequence for unit in units if unit.handed_out}
    assert handed_out and 3 in waited_for
