"""Every page belongs to one group, and nothing changes groups before `boundary_after` (FIG. 6, FIG. 7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.address import ADDRESS_LIMIT, PAGE_SIZE_MAX, PAGE_SIZE_MIN, VOLUME_ALIGNMENT
from mirrortool.replay import ranges
from mirrortool.replay.ranges import RANGES, Interleaved, busy_groups_of_space, divide
from mirrortool.volume import place

PAGE_SIZES = [PAGE_SIZE_MIN << shift for shift in range(8)]
assert PAGE_SIZES[-1] == PAGE_SIZE_MAX


@pytest.fixture(autouse=True)
def short_stripes(monkeypatch):
    monkeypatch.setattr(ranges, "pages_per_segment", lambda _: 5)


def test_an_address_of_fig_7_is_in_the_fourth_of_four_ranges():
    page_size = 4096
    divided = divide("space", 4, place([("disk", 1 << 40)], page_size))
    assert divided.group_of(0x310000D400000000 // page_size) == 3
    quarter = ADDRESS_LIMIT // page_size // 4
    assert [divided.group_of(quarter * number) for number in range(4)] == [0, 1, 2, 3]
    assert [divided.group_of(quarter * number - 1) for number in range(1, 5)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("volumes", "groups", "busy"),
    [
        ([("a", 1 << 40, None)], 4, {0}),
        ([(f"v{number}", 1, None) for number in range(1024)], 16, {0}),  # as many as a journal has
        ([(f"v{number}", 1, None) for number in range(1024)], 17, {0, 1}),
        ([("a", 1, 0), ("b", 1, 1 << 60), ("c", 1, 0x3FFF << 48)], 4, {0, 1, 3}),
        ([("a", 1, 0), ("b", 1, 1 << 60), ("c", 1, 0x3FFF << 48)], 2, {0, 1}),
        ([("a", 1, 0), ("b", 1, 1 << 60)], 2, {0}),
        ([("a", 0x3100 << 48, None)], 4, {0, 1, 2, 3}),
        ([("a", 1 << 60, None)], 4, {0}),
        ([("a", (1 << 60) + 1, None)], 4, {0, 1}),
        ([("a", 0, 1 << 60)], 4, {1}),  # an empty one is counted where it starts
        ([("a", 1, 1 << 60)], 1, {0}),
    ],
)
def test_groups_of_space_that_volumes_reach(volumes, groups, busy):
    addresses = {name: address for name, _, address in volumes if address is not None}
    placed = place([(name, size) for name, size, _ in volumes], 4096, addresses)
    assert busy_groups_of_space(groups, placed) == busy


@given(
    kind=st.sampled_from(RANGES),
    groups=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 40 * 512), min_size=1, max_size=4),
)
def test_groups_change_at_boundaries_only(kind, groups, sizes):
    """Brute force over the pages of every volume, and a few behind it."""
    volumes = place([(f"v{i}", size) for i, size in enumerate(sizes)], 512)
    divided = divide(kind, groups, volumes)
    for volume in volumes:
        first = volumes.first_page(volume)
        pages = range(first, first + volumes.page_count(volume) + 12)
        for page in pages:
            group, boundary = divided.group_of(page), divided.boundary_after(page)
            assert 0 <= group < groups
            assert boundary > page
            assert {divided.group_of(each) for each in range(page, min(boundary, pages.stop))} == {group}


@given(
    kind=st.sampled_from(RANGES),
    groups=st.integers(1, 256),
    page_size=st.sampled_from(PAGE_SIZES),
    address=st.integers(0, ADDRESS_LIMIT - 1),
)
def test_the_whole_space_is_covered_and_walking_it_ends(kind, groups, page_size, address):
    divided = divide(kind, groups, place([("a", 10**6), ("b", VOLUME_ALIGNMENT), ("c", 10**9)], page_size))
    page = address // page_size
    assert 0 <= divided.group_of(page) < groups
    assert page < divided.boundary_after(page)


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 7])
def test_a_single_volume_reaches_every_group(groups):
    """Whoever has one disk image has parallelism as well."""
    volumes = place([("disk", 512 * 5 * 20)], 512)
    for kind in ("auto", "equal", "interleaved"):
        divided = divide(kind, groups, volumes)
        assert {divided.group_of(page) for page in range(100)} == set(range(groups)), kind


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_equal_parts_are_equal(groups):
    volumes = place([("a", 512 * 120), ("b", 512 * 60)], 512)
    divided = divide("equal", groups, volumes)
    for volume in volumes:
        first, count = volumes.first_page(volume), volumes.page_count(volume)
        found = [divided.group_of(page) for page in range(first, first + count)]
        assert found == [number for number in range(groups) for _ in range(count // groups)]


def test_a_stripe_is_a_segment():
    """An iSeries segment, 16 MiB, is never split between groups."""
    stripes = Interleaved(3, 4096)
    assert stripes.group_of(4095) == 0
    assert stripes.group_of(4096) == 1
    assert stripes.boundary_after(4095) == 4096
    assert stripes.boundary_after(4096) == 8192
    assert stripes.group_of(4096 * 3) == 0
