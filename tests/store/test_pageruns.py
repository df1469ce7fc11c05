"""Runs of pages: subtracting and collecting them costs what the runs cost, not what the pages do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.store import pageruns

RUNS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=12)


def pages_of(runs: list[tuple[int, int]]) -> set[int]:
    return {page for first, count in runs for page in range(first, first + count)}


@given(RUNS, RUNS)
def test_without_is_the_difference_of_sets(runs: list[tuple[int, int]], excused: list[tuple[int, int]]) -> None:
    runs, excused = pageruns.merged_runs(sorted(runs)), pageruns.merged_runs(sorted(excused))
    kept, number = pageruns.without(runs, excused)
    assert pages_of(kept) == pages_of(runs) - pages_of(excused)
    assert number == len(pages_of(runs) & pages_of(excused))
    assert kept == sorted(kept)


def test_a_long_run_costs_no_more_than_a_short_one() -> None:
    assert pageruns.without([(0, 1 << 50)], [(1 << 40, 1)]) == (
        [(0, 1 << 40), ((1 << 40) + 1, (1 << 50) - (1 << 40) - 1)],
        1,
    )


@given(RUNS)
def test_collector_keeps_the_union(runs: list[tuple[int, int]]) -> None:
    collector = pageruns.RunCollector()
    collector._merge_at = 3
    for run in runs:
        collector.add(run)
    assert pages_of(collector.merged()) == pages_of(runs)
    assert collector.merged() == pageruns.merged_runs(collector.merged())


PAIRS: list[tuple[list[tuple[int, int]], list[tuple[int, int]] | None, tuple[list[tuple[int, int]], int]]] = [
    ([], [], ([], 0)), ([(1, 3)], [], ([(1, 3)], 0)), ([(1, 3)], None, ([], 3)), ([(1, 3)], [(1, 3)], ([], 3)),
    ([(1, 5)], [(2, 2)], ([(1, 1), (4, 2)], 2)), ([(1, 2), (5, 2)], [(2, 4)], ([(1, 1), (6, 1)], 2)),
    ([(5, 1)], [(0, 5), (6, 9)], ([(5, 1)], 0)),
]  # fmt: skip


@pytest.mark.parametrize(("runs", "excused", "expected"), PAIRS)
def test_excused_pages_are_taken_out_of_runs(runs: list, excused: list | None, expected: tuple) -> None:
    assert pageruns.without(runs, excused) == expected
