"""Runs of pages: subtracting and collecting them costs what the runs cost, not what the pages do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mirrortool import verify

RUNS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=12)


def pages_of(runs: list[tuple[int, int]]) -> set[int]:
    return {page for first, count in runs for page in range(first, first + count)}


@given(RUNS, RUNS)
def test_without_is_the_difference_of_sets(runs: list[tuple[int, int]], excused: list[tuple[int, int]]) -> None:
    runs, excused = verify._merged(sorted(runs)), verify._merged(sorted(excused))
    kept, number = verify._without(runs, excused)
    assert pages_of(kept) == pages_of(runs) - pages_of(excused)
    assert number == len(pages_of(runs) & pages_of(excused))
    assert kept == sorted(kept)


def test_a_long_run_costs_no_more_than_a_short_one() -> None:
    assert verify._without([(0, 1 << 50)], [(1 << 40, 1)]) == (
        [(0, 1 << 40), ((1 << 40) + 1, (1 << 50) - (1 << 40) - 1)],
        1,
    )


@given(RUNS)
def test_collector_keeps_the_union(runs: list[tuple[int, int]]) -> None:
    collector = verify._RunCollector()
    collector._merge_at = 3
    for run in runs:
        collector.add(run)
    assert pages_of(collector.merged()) == pages_of(runs)
    assert collector.merged() == verify._merged(collector.merged())
