"""Footprints and page sets are exact sets of pages."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirrortool.replay.writeunit import RUN_COST_BYTES, UNIT_COST_BYTES, Footprint, PageSet, WriteUnit

PAGES = st.sets(st.integers(0, 40), min_size=1)
RUNS = st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda run: set(range(run[0], sum(run))))
ANY = st.one_of(PAGES, RUNS)


def footprint_of(pages: set[int]) -> Footprint:
    return Footprint.of_runs(_runs(sorted(pages)))


def _runs(pages: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs


@given(ANY)
def test_footprint_has_exactly_its_pages(pages):
    footprint = footprint_of(pages)
    assert list(footprint.each_page()) == sorted(pages)
    assert footprint.page_count() == len(pages)
    assert (footprint.first, footprint.end) == (min(pages), max(pages) + 1)


@given(ANY, ANY)
def test_footprints_intersect_where_they_share_a_page(left, right):
    assert footprint_of(left).intersects(footprint_of(right)) == bool(left & right)


@given(st.lists(ANY), ANY)
@settings(max_examples=200)
def test_page_set_is_the_exact_union(parts, probe):
    pages = PageSet(map(footprint_of, parts))
    expected = set().union(*parts)
    assert pages.each_page() == sorted(expected)
    assert bool(pages) == bool(expected)
    assert pages.intersects(footprint_of(probe)) == bool(expected & probe)


@given(st.lists(ANY), st.lists(ANY, min_size=1), ANY)
@example([], [{2}, {0}], {0})  # the second part covers a hull that does not count the first yet
@settings(max_examples=200)
def test_page_set_takes_in_another(left, right, later):
    ours, theirs = (PageSet(map(footprint_of, each)) for each in (left, right))
    ours.update(theirs)
    theirs.clear()
    ours.add(footprint_of(later))
    assert ours.each_page() == sorted(later.union(*left, *right))
    assert not theirs


def test_cleared_page_set_meets_nothing():
    pages = PageSet([Footprint(0, 10), Footprint.of_runs([(0, 1), (20, 1)])])
    pages.clear()
    assert not pages.intersects(Footprint(0, 1 << 50))


@pytest.mark.parametrize(
    ("parts", "length"),
    [
        ([Footprint(each, each + 2) for each in range(1000)], 1),  # a log that grows
        ([Footprint(7, 8)] * 1000, 1),  # a hot page
        ([Footprint(0, 1 << 40), *(Footprint(each * 9, each * 9 + 1) for each in range(1000))], 1),  # inside a wide one
        ([Footprint(0, 1), Footprint(500, 501), Footprint(0, 1 << 40)], 1),  # a wide one last
        ([Footprint(0, 1), Footprint(500, 501)], 2),
    ],
)
def test_page_set_merges_neighbours(parts, length):
    assert len(PageSet(parts)._runs) == length


def test_footprints_have_no_bound():
    whole = Footprint.of_runs([(0, 1 << 50)])
    far = Footprint.of_runs([(1, 1), ((1 << 49) + 2, 1)])
    assert whole.intersects(far)
    assert far.intersects(whole)
    assert not far.intersects(Footprint(2, 1 << 49))
    assert whole.page_count() == 1 << 50


def test_unit_costs_more_than_its_payload():
    unit = WriteUnit(0, Footprint(0, 2), runs=[(0, [b"x" * 512], 512)], zeros=[(1, 1)], payload_bytes=512)
    assert unit.cost == 512 + UNIT_COST_BYTES + 2 * RUN_COST_BYTES
