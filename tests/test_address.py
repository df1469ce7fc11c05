"""The address space is cut into pages and segments without gap or overlap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.address import (
    ADDRESS_LIMIT,
    SEGMENT_BYTES,
    VOLUME_ALIGNMENT,
    adjacent_runs,
    is_page_size,
    pages_in,
    pages_per_segment,
    split_at,
)


def test_the_space_is_that_of_figure_7() -> None:
    assert ADDRESS_LIMIT - 1 == 0x3FFFFFFFFFFFFFFF
    assert SEGMENT_BYTES == 0x1000000
    assert VOLUME_ALIGNMENT % SEGMENT_BYTES == 0
    assert ADDRESS_LIMIT % VOLUME_ALIGNMENT == 0


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
def test_page_sizes_are_powers_of_two(size: int) -> None:
    assert is_page_size(size)
    assert pages_per_segment(size) * size == SEGMENT_BYTES


@pytest.mark.parametrize("size", [-512, 0, 1, 256, 511, 513, 4095, 4097, 6144, 65537, 131072])
def test_other_sizes_are_refused(size: int) -> None:
    assert not is_page_size(size)


@pytest.mark.parametrize(("size", "pages"), [(0, 0), (1, 1), (511, 1), (512, 1), (513, 2), (1 << 62, 1 << 53)])
def test_the_last_page_may_be_partial(size: int, pages: int) -> None:
    assert pages_in(size, 512) == pages


@given(st.integers(0, 1 << 53), st.integers(0, 300), st.integers(1, 64))
def test_split_pieces_cover_the_run_and_cross_no_cut(first: int, count: int, step: int) -> None:
    pieces = list(split_at(first, count, step))
    covered = [page for start, number in pieces for page in range(start, start + number)]
    assert covered == list(range(first, first + count))
    for start, number in pieces:
        assert number > 0
        assert start // step == (start + number - 1) // step


@given(st.sets(st.integers(0, 40) | st.integers(0, 1 << 53)))
def test_runs_are_the_numbers_and_as_long_as_can_be(numbers: set[int]) -> None:
    runs = list(adjacent_runs(sorted(numbers)))
    assert [number for first, count in runs for number in range(first, first + count)] == sorted(numbers)
    for (first, count), (following, _) in pairwise(runs):
        assert first + count < following


def test_runs_are_told_as_they_end() -> None:
    """So that nobody keeps them all."""
    numbers = iter([0, 1, 2, 7, 8, 20])
    runs = adjacent_runs(numbers)
    assert next(runs) == (0, 3)
    assert next(numbers) == 8
