"""What a trace proves: a schedule that keeps the order is right, and whatever breaks it is found."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import BadLogError
from mirrortool.lsn import Lsn
from mirrortool.operation import Kind
from mirrortool.replay.tracing import Drained, Ended, InlineRun, Post, Started, UnitRun
from mirrortool.replay.writeunit import How
from mirrortool.trace import section
from mirrortool.trace.check import Checker
from mirrortool.trace.violation import Rule
from tests.trace.records import STARTED, plan, rules, unit, violations

SENT = {"how": How.MINI_QUEUE, "sent_by": 7}
WAITED = {"how": How.COUNTER_WAIT}
LAST = (1 << 40) - 1
INLINE = InlineRun(1, Lsn(9), Kind.ZERO, 0, 1, 20, 30)

RIGHT = {
    "one after another": [unit(0, 1, 2), unit(1, 2, 3), Ended(2, 3)],
    "another order in the file": [unit(1, 2, 3), unit(0, 1, 2), Drained(2, 3), Ended(2, 4)],
    "together on other pages": [unit(0, 1, 9, (0, 1)), unit(1, 2, 3, (1, 1)), Ended(2, 9)],
    "out of order on other pages": [unit(0, 5, 9, (0, 1)), unit(1, 2, 3, (1, 1)), Ended(2, 9)],
    "interleaved runs": [unit(0, 1, 9, (0, 1), (2, 1)), unit(1, 1, 9, (1, 1), (3, 1)), Ended(2, 9)],
    "a drain between": [unit(0, 1, 2), Drained(1, 3), unit(1, 3, 4), Ended(2, 5)],
    "inline between": [unit(0, 1, 2), Drained(1, 3), INLINE, unit(2, 31, 32), Ended(3, 40)],
    "inline first": [replace(INLINE, sequence=0), unit(1, 31, 32), Ended(2, 40)],
    "another plan": [unit(0, 1, 2, group=1), Drained(1, 3), plan(4), unit(1, 5, 6, group=0), Ended(2, 7)],
    "another group after a drain": [unit(0, 1, 2, group=1), Drained(1, 3), unit(1, 4, 5), Ended(2, 6)],
    "the next failed": [unit(0, 1, 2), unit(1, 2, 3, failed=True), Ended(9, 9)],
    "failed, others are missing": [unit(3, 1, 2, failed=True), unit(5, 2, 3, (1, 1)), Ended(9, 9)],
    "no end": [unit(0, 1, 2), unit(7, 2, 3)],
    "no end, and then another": [unit(5, 1, 2), STARTED, plan(50), unit(0, 51, 52), Ended(1, 53)],
    "sent": [unit(0, 1, 2, task=7), unit(1, 5, 6, sent_ns=4, **SENT), unit(2, 6, 7, task=7), Ended(3, 9)],
    "waited": [
        unit(0, 1, 4, (0, 1), task=1),
        unit(1, 1, 5, (1, 1), task=2),
        unit(2, 9, 10, (0, 2), task=3, wait_ns=2, posts=(Post(1, 4), Post(2, 6)), **WAITED),
        Ended(3, 10),
    ],
    "nothing": [Ended(0, 1)],
    "no units, and no end": [],
}
WRONG = {
    "before": ([unit(0, 3, 4), unit(1, 1, 2), Ended(2, 9)], "order"),
    "together": ([unit(0, 1, 3), unit(1, 2, 4), Ended(2, 9)], "together"),
    "inside": ([unit(0, 1, 9), unit(1, 2, 4), Ended(2, 9)], "together"),
    "the last page of a long run": ([unit(0, 1, 3, (0, LAST + 1)), unit(1, 2, 4, (LAST, 1)), Ended(2, 9)], "together"),
    "one of many runs": ([unit(0, 1, 3, (0, 1), (5, 2)), unit(1, 2, 4, (3, 1), (6, 9)), Ended(2, 9)], "together"),
    "two groups": ([unit(0, 1, 2), unit(1, 2, 3, group=1), Ended(2, 9)], "groups"),
    "one is missing": ([unit(0, 1, 2), unit(2, 2, 3), Ended(3, 9)], "missing"),
    "the last is missing": ([unit(0, 1, 2), Drained(2, 9), Ended(2, 9)], "missing"),
    "all are missing": ([Ended(1 << 63, 9)], "missing"),
    "twice": ([unit(0, 1, 2), unit(0, 2, 3), Ended(1, 9)], "twice"),
    "twice, the second came early": ([unit(1, 2, 3), unit(1, 3, 4), unit(0, 1, 2), Ended(2, 9)], "twice"),
    "ended after the drain": ([unit(0, 1, 8), Drained(1, 7), Ended(1, 9)], "drain"),
    "began before the drain": ([unit(0, 1, 2), Drained(1, 5), unit(1, 4, 6, (1, 1)), Ended(2, 9)], "drain"),
    "comes after the drain": ([unit(0, 1, 2), unit(1, 2, 3), Drained(1, 5), Ended(1, 9)], "drain"),
    "comes long after the drain": ([unit(0, 1, 2), unit(5, 2, 3), Drained(1, 5), Ended(1, 9)], "drain"),
    "ran into an inline operation": ([unit(0, 1, 21, (5, 1)), INLINE, Ended(2, 40)], "drain"),
    "began in an inline operation": ([replace(INLINE, sequence=0), unit(1, 29, 31), Ended(2, 40)], "drain"),
    "after the end": ([Ended(0, 1), unit(0, 2, 3)], "drain"),
    "after a failure": ([unit(0, 1, 2, failed=True), unit(1, 2, 3), Ended(2, 9)], "failed"),
    "failed again": ([unit(0, 1, 2, failed=True), unit(1, 2, 3, failed=True), Ended(2, 9)], "failed"),
    "continued": ([unit(0, 1, 2, failed=True), Drained(1, 3), unit(1, 4, 5, (1, 1)), Ended(2, 9)], "failed"),
    "a task at two units": ([unit(0, 1, 4, task=1), unit(1, 3, 5, (1, 1), task=1), Ended(2, 9)], "task"),
    "sent by itself": ([unit(0, 1, 2, **{**SENT, "sent_by": 0}, sent_ns=1), Ended(1, 9)], "sent"),
    "sent too late": ([unit(0, 1, 4, sent_ns=2, **SENT), Ended(1, 9)], "sent"),
    "sent before the drain": ([Drained(0, 3), unit(0, 4, 5, sent_ns=2, **SENT), Ended(1, 9)], "sent"),
    "sent while busy": ([unit(0, 5, 6, sent_ns=3, **SENT), unit(1, 2, 4, (1, 1), task=7), Ended(2, 9)], "sent"),
    "no post": ([unit(0, 5, 6, wait_ns=3, **WAITED), Ended(1, 9)], "wait"),
    "one post": ([unit(0, 5, 6, wait_ns=3, posts=(Post(1, 4),), **WAITED), Ended(1, 9)], "wait"),
    "one task": ([unit(0, 5, 6, wait_ns=3, posts=(Post(1, 4), Post(1, 5)), **WAITED), Ended(1, 9)], "wait"),
    "its own post": ([unit(0, 5, 6, wait_ns=3, posts=(Post(1, 4), Post(0, 5)), **WAITED), Ended(1, 9)], "wait"),
    "began before the last post": (
        [unit(0, 5, 6, wait_ns=3, posts=(Post(1, 4), Post(2, 6)), **WAITED), Ended(1, 9)], "wait",
    ),
    "posted before the wait": (
        [unit(0, 5, 6, wait_ns=3, posts=(Post(1, 2), Post(2, 4)), **WAITED), Ended(1, 9)], "wait",
    ),
    "posted while busy": (
        [
            unit(0, 5, 6, wait_ns=2, posts=(Post(1, 4), Post(2, 4)), **WAITED),
            unit(1, 3, 5, (1, 1), task=2),
            Ended(2, 9),
        ],
        "wait",
    ),
    "applied while it waited": (
        [
            unit(1, 1, 4, (1, 1), task=0),
            unit(0, 5, 6, wait_ns=3, posts=(Post(1, 4), Post(2, 5)), **WAITED),
            Ended(2, 9),
        ],
        "wait",
    ),
    "no such group": ([unit(0, 1, 2, group=2), Ended(1, 9)], "plan"),
    "no such task": ([unit(0, 1, 2, task=64), Ended(1, 9)], "plan"),
    "no such sender": ([unit(0, 1, 2, **{**SENT, "sent_by": 64}, sent_ns=1), Ended(1, 9)], "plan"),
    "no such task was waited for": (
        [unit(0, 5, 6, wait_ns=3, posts=(Post(1, 4), Post(64, 5)), **WAITED), Ended(1, 9)], "plan",
    ),
    "ends before it begins": ([unit(0, 2, 1), Ended(1, 9)], "clock"),
    "inline ends before it begins": ([replace(INLINE, sequence=0, end_ns=10), Ended(1, 40)], "clock"),
    "the end before the drain": ([Drained(0, 5), Ended(0, 3)], "clock"),
    "a drain before the plan": ([plan(8), Drained(0, 5), Ended(0, 9)], "clock"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_trace_that_is_right_is_accepted(name):
    assert rules(*RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_trace_that_is_wrong_breaks_one_rule(name):
    records, rule = WRONG[name]
    assert rules(*records) == [rule]


def test_each_rule_has_a_wrong_trace():
    assert {rule for _, rule in WRONG.values()} == {rule.value for rule in Rule}


def test_a_violation_names_both_units_a_page_and_the_times():
    (found,) = violations(plan(1_000), unit(3, 2_500, 4_000, (0x1E, 4)), unit(4, 3_000, 3_500, (0x1F, 1)))
    assert found.what == (
        "unit 4 (LSN 104) was applied at the same time as unit 3 (LSN 103), both on page 0x1f: "
        "0.000003000 s to 0.000003500 s and 0.000002500 s to 0.000004000 s"
    )
    assert (found.sequence, found.lsn, found.other_sequence, found.other_lsn) == (4, 104, 3, 103)
    assert (found.replay, found.page) == (1, 0x1F)


def test_missing_units_are_told_as_runs():
    found = violations(unit(3, 1, 2), unit(5, 2, 3), Ended(1 << 60, 9))
    assert [each.what for each in found] == [
        "units 0 to 2 were never applied",
        "unit 4 was never applied",
        f"units 6 to {(1 << 60) - 1} were never applied",
    ]


def test_a_unit_that_comes_after_its_drain_is_told_beside_that_it_was_missing():
    assert rules(Drained(1, 5), unit(0, 2, 7), Ended(1, 9)) == ["missing", "drain", "drain"]


def test_units_before_a_drain_are_missing_also_where_later_ones_are_not():
    assert rules(unit(0, 1, 2), unit(5, 2, 3), Drained(3, 5), Ended(3, 9)) == ["missing", "drain"]


@pytest.mark.parametrize(
    "records",
    [
        [unit(0, 1, 2)],
        [plan()],
        [Drained(0, 1)],
        [INLINE],
        [Ended(0, 1)],
        [STARTED, unit(0, 1, 2)],
        [STARTED, Drained(0, 1)],
        [STARTED, plan(), unit(0, 1, 2), plan(3)],
        [STARTED, plan(), Drained(5, 1), Drained(4, 2)],
        [STARTED, plan(), Ended(0, 1), Drained(0, 2)],
        [STARTED, plan(), Ended(0, 1), plan(2)],
        [STARTED, plan(), Ended(0, 1), Ended(0, 2)],
        [],
    ],
)
def test_what_no_replay_writes_is_not_a_trace(records):
    checker = Checker(lambda _: None)
    with pytest.raises(BadLogError):
        _check_all(checker, records)


def _check_all(checker, records):
    for record in records:
        checker.add(record)
    checker.finish()


@pytest.mark.parametrize(
    "endless",
    [
        lambda number: unit(number + 1, 1, 2, (number, 1)),  # all wait for unit 0
        lambda number: unit(number, number, number + 1),
        lambda number: unit(number, 1, 2, *((2 * number + page * 10**6, 1) for page in range(9))),
        lambda number: unit(number, 1, 2, wait_ns=1, posts=(Post(1, 1),) * 9, **WAITED),
    ],
)
def test_a_trace_without_drains_does_not_fill_the_memory(endless, monkeypatch):
    monkeypatch.setattr(section, "SECTION_ENTRIES_MAX", 1000)
    with pytest.raises(BadLogError, match="has more than 1000 units and runs of pages between two drains"):
        _check_all(Checker(lambda _: None), [STARTED, plan(), *map(endless, range(1001))])


# Any schedule.

FOOTPRINTS = st.lists(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3)), min_size=1, max_size=3), min_size=1, max_size=14
)


def runs_of(pieces) -> tuple[tuple[int, int], ...]:
    pages = sorted({page for first, count in pieces for page in range(first, first + count)})
    runs: list[list[int]] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1][1] += 1
        else:
            runs.append([page, 1])
    return tuple((first, count) for first, count in runs)


def pages_of(record: UnitRun) -> set[int]:
    return {page for first, count in record.footprint for page in range(first, first + count)}


@settings(max_examples=80, deadline=None)
@given(data=st.data(), footprints=FOOTPRINTS, tasks=st.integers(1, 4))
def test_a_schedule_that_keeps_the_order_is_accepted_and_any_other_is_found(data, footprints, tasks):
    units: list[UnitRun] = []
    for sequence, pieces in enumerate(footprints):
        new = unit(sequence, 0, 0, *runs_of(pieces), task=data.draw(st.integers(0, tasks - 1)))
        earliest = max(
            (each.end_ns for each in units if each.task == new.task or pages_of(each) & pages_of(new)), default=0
        )
        start = earliest + data.draw(st.integers(0, 2))
        units.append(replace(new, start_ns=start, end_ns=start + data.draw(st.integers(1, 5))))
    end = Ended(len(units), 10**6)
    by_end = sorted(units, key=lambda each: (each.end_ns, each.sequence))
    assert rules(*by_end, end) == []
    pairs = [(a, b) for a, b in itertools.combinations(units, 2) if pages_of(a) & pages_of(b)]
    if pairs:
        early, late = data.draw(st.sampled_from(pairs))
        start = data.draw(st.integers(0, early.end_ns - 1))
        moved = replace(late, task=60, start_ns=start, end_ns=start + 1)
        found = violations(*(moved if each is late else each for each in by_end), end)
        assert late.sequence in {each.sequence for each in found if each.rule in (Rule.ORDER, Rule.TOGETHER)}


@settings(max_examples=120, deadline=None)
@given(data=st.data(), footprints=FOOTPRINTS)
def test_units_are_found_wrong_if_and_only_if_two_that_overlap_are(data, footprints):
    """Compared with looking at each pair, whatever the times and the order in the file."""
    times = st.tuples(st.integers(0, 20), st.integers(1, 4))
    units = []
    for sequence, pieces in enumerate(footprints):
        start, took = data.draw(times)
        units.append(unit(sequence, start, start + took, *runs_of(pieces)))
    is_wrong = any(
        pages_of(early) & pages_of(late) and late.start_ns < early.end_ns
        for early, late in itertools.combinations(units, 2)
    )
    found = rules(*data.draw(st.permutations(units)), Ended(len(units), 100))
    assert set(found) <= {"order", "together"}
    assert bool(found) == is_wrong


def test_a_started_replay_is_numbered():
    found = violations(Ended(0, 1), Started("j", "m", 512, 0), plan(2), unit(0, 3, 9), unit(1, 4, 5))
    assert [each.replay for each in found] == [2]
