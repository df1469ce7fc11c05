"""Volumes have places of their own, and a page belongs to one at most."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.address import ADDRESS_LIMIT, VOLUME_ALIGNMENT
from mirrortool.errors import UsageError
from mirrortool.volume import VOLUMES_MAX, Volume, VolumeSet, place

PAGE = 512
STEP = VOLUME_ALIGNMENT
SIZES = st.lists(st.sampled_from([0, 1, 511, 512, 513, 5000, STEP - 1, STEP, STEP + 1]), min_size=1, max_size=5)


def named(sizes: list[int]) -> VolumeSet:
    return place([(f"v{number}", size) for number, size in enumerate(sizes)], PAGE)


@given(SIZES)
def test_placed_volumes_are_aligned_and_apart(sizes: list[int]) -> None:
    volumes = list(named(sizes))
    assert [volume.size for volume in volumes] == sizes
    assert all(volume.start % STEP == 0 for volume in volumes)
    for volume, following in itertools.pairwise(volumes):
        assert volume.start + max(1, volume.size) <= following.start


@given(SIZES, st.data())
def test_find_gives_the_volume_that_holds_all_pages(sizes: list[int], data: st.DataObject) -> None:
    volumes = named(sizes)
    near = data.draw(st.sampled_from(list(volumes)))
    around = data.draw(st.sampled_from([0, -(-near.size // PAGE)]))
    page = max(0, near.start // PAGE + around + data.draw(st.integers(-4, 4)))
    count = data.draw(st.integers(1, 6))
    expected = [
        volume
        for volume in volumes
        if volume.start // PAGE <= page and page + count <= volume.start // PAGE - (-volume.size // PAGE)
    ]
    assert volumes.find(page, count) == (expected[0] if expected else None)


@given(SIZES)
def test_starting_at_knows_first_pages_only(sizes: list[int]) -> None:
    volumes = named(sizes)
    for volume in volumes:
        assert volumes.starting_at(volumes.first_page(volume)) == volume
        assert volumes.starting_at(volumes.first_page(volume) + 1) is None
    assert volumes.starting_at(ADDRESS_LIMIT // PAGE) is None


@given(SIZES)
def test_a_volume_may_grow_up_to_the_next_and_no_further(sizes: list[int]) -> None:
    volumes = named(sizes)
    for volume in volumes:
        limit = volumes.limit_of(volume)
        assert volumes.resized(volume, limit)[volume.name].size == limit
        with pytest.raises(UsageError):
            volumes.resized(volume, limit + 1)


def test_resizing_changes_one_volume_and_no_set() -> None:
    volumes = named([512, 512])
    larger = volumes.resized(volumes["v0"], 1024)
    assert [volume.size for volume in larger] == [1024, 512]
    assert [volume.size for volume in volumes] == [512, 512]
    assert larger != volumes
    assert larger.resized(larger["v0"], 512) == volumes
    assert hash(larger.resized(larger["v0"], 512)) == hash(volumes)


def test_volumes_are_known_by_name() -> None:
    volumes = named([1, 2])
    assert "v1" in volumes
    assert "v2" not in volumes
    assert len(volumes) == 2
    assert volumes["v1"].size == 2


@pytest.mark.parametrize(
    ("volumes", "problem"),
    [
        ([], "1 to 1024"),
        ([Volume(f"v{n}", n * STEP, 0) for n in range(VOLUMES_MAX + 1)], "1 to 1024"),
        ([Volume("a", 0, 1), Volume("a", STEP, 1)], "same name"),
        ([Volume("a", 0, STEP + 1), Volume("b", STEP, 1)], "too large"),
        ([Volume("a", 0, 1), Volume("b", 0, 1)], "too large"),
        ([Volume("a", 0, ADDRESS_LIMIT + 1)], "too large"),
        ([Volume("a", ADDRESS_LIMIT, 1)], "too large"),
        ([Volume("a", 4096, 1)], "2\\^48"),
        ([Volume("a", -STEP, 1)], "2\\^48"),
        ([Volume("a", 0, -1)], "2\\^48"),
        *(([Volume(name, 0, 1)], "not a volume name") for name in ["", ".", "-a", "a/b", "..", "a\n", "é", "x" * 65]),
    ],
)
def test_sets_that_make_no_sense_are_refused(volumes: list[Volume], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        VolumeSet(volumes, PAGE)
