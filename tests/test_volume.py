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


QUARTER = 1 << 60
WANTED = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 513, STEP - 1, STEP, STEP + 1, 3 * STEP, QUARTER, 3 * QUARTER, ADDRESS_LIMIT]),
        st.sampled_from([None, None, 0, STEP, 2 * STEP, 5 * STEP, QUARTER, 3 * QUARTER, ADDRESS_LIMIT - STEP]),
    ),
    min_size=1,
    max_size=7,
)
"""Of each volume its size, and the address that it is to start at."""


def placed(wanted: list[tuple[int, int | None]]) -> list[Volume]:
    """In the order given."""
    sizes = [(f"v{number}", size) for number, (size, _) in enumerate(wanted)]
    addresses = {f"v{number}": address for number, (_, address) in enumerate(wanted) if address is not None}
    volumes = place(sizes, PAGE, addresses)
    return [volumes[name] for name, _ in sizes]


def last_step(size: int, start: int) -> int:
    """The last multiple of 2^48 that a volume takes, an empty one too."""
    return start + max(0, size - 1) // STEP * STEP


def is_apart(size: int, start: int, others: list[tuple[int, int]]) -> bool:
    """Whether a volume shares no multiple of 2^48 with others (start, last step), and lies in the address space."""
    last = last_step(size, start)
    return last < ADDRESS_LIMIT and all(last < first or start > end for first, end in others)


@given(SIZES)
def test_placed_volumes_are_aligned_and_apart(sizes: list[int]) -> None:
    volumes = list(named(sizes))
    assert [volume.size for volume in volumes] == sizes
    assert all(volume.start % STEP == 0 for volume in volumes)
    for volume, following in itertools.pairwise(volumes):
        assert volume.start + max(1, volume.size) <= following.start


@given(SIZES)
def test_volumes_without_addresses_follow_one_another(sizes: list[int]) -> None:
    """As every journal has them that was made before a volume could have an address."""
    start = 0
    for volume, size in zip(named(sizes), sizes, strict=True):
        assert (volume.start, volume.size) == (start, size)
        start += max(1, -(-size // STEP)) * STEP


@given(WANTED)
def test_an_address_is_kept_and_the_others_get_the_lowest_that_is_free(wanted: list[tuple[int, int | None]]) -> None:
    """Each is refused that has no place, and only then: brute force over all places at which one could be lowest."""
    taken: list[tuple[int, int]] = []
    expected = dict[int, int]()
    refusal = ""
    # Those with an address come first; sorting is stable.
    for number, (size, address) in sorted(enumerate(wanted), key=lambda each: each[1][1] is None):
        candidates = [address] if address is not None else sorted([0, *(end + STEP for _, end in taken)])
        fitting = [start for start in candidates if is_apart(size, start, taken)]
        if not fitting:
            refusal = "overlap|beyond the last" if address is not None else "too large for what the others leave"
            break
        expected[number] = fitting[0]
        taken.append((fitting[0], last_step(size, fitting[0])))
    if refusal:
        with pytest.raises(UsageError, match=refusal):
            placed(wanted)
        return
    volumes = placed(wanted)
    assert {number: volume.start for number, volume in enumerate(volumes)} == expected
    assert [volume.size for volume in volumes] == [size for size, _ in wanted]


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        (
            [(1, 0x10)],
            "volume v0 cannot start at 0x0000000000000010: that is not a multiple of 2^48; "
            "place it at 0x0000000000000000 or 0x0001000000000000",
        ),
        (
            [(1, ADDRESS_LIMIT - 1)],
            "volume v0 cannot start at 0x3fffffffffffffff: that is not a multiple of 2^48; "
            "place it at 0x3fff000000000000",
        ),
        *(
            (
                [(1, address)],
                f"volume v0 cannot start at {shown}: addresses are 0x0000000000000000 to 0x3fffffffffffffff; "
                "the last that a volume can have is 0x3fff000000000000",
            )
            for address, shown in [(ADDRESS_LIMIT, "0x4000000000000000"), (-STEP, "-0x001000000000000")]
        ),
        (
            [(STEP + 1, 0x3FFF << 48)],
            "volume v0 cannot start at 0x3fff000000000000: with 256.0 TiB (281474976710657 bytes) it would reach "
            "beyond the last address; place it at 0x3ffe000000000000 or lower",
        ),
        (
            [(1, STEP), (0, STEP)],
            "volumes v0 and v1 overlap: both start at 0x0001000000000000; place v1 at 0x0002000000000000 or higher",
        ),
        (
            [(1, 2 * STEP), (STEP + 1, STEP)],
            "volumes v1 and v0 overlap: the first ends at 0x0002000000000000; place v0 at 0x0003000000000000 or higher",
        ),
        (
            [(1, 0x3FFF << 48), (1, 0x3FFF << 48)],
            "volumes v0 and v1 overlap: both start at 0x3fff000000000000; place them apart",
        ),
        (
            [(ADDRESS_LIMIT + 1, None)],
            "volume v0 is too large, with 4096.0 PiB (4611686018427387905 bytes); "
            "the whole address space has 4096.0 PiB",
        ),
        (
            [(3 * QUARTER, STEP), (QUARTER, None)],
            "volume v1 is too large for what the others leave, with 1024.0 PiB: 1023.8 PiB are free in one piece; "
            "place the others closer together, or make several journals",
        ),
    ],
)
def test_what_has_no_place_is_refused_with_one_that_it_could_have(
    wanted: list[tuple[int, int | None]], refusal: str
) -> None:
    with pytest.raises(UsageError) as raised:
        placed(wanted)
    assert str(raised.value) == refusal


def test_a_name_that_two_have_is_refused_whatever_their_addresses() -> None:
    with pytest.raises(UsageError, match="same name"):
        place([("a", 1), ("a", 1)], PAGE, {"a": STEP})


@given(WANTED)
def test_a_placed_volume_may_grow_to_the_next_and_the_last_to_the_end(wanted: list[tuple[int, int | None]]) -> None:
    try:
        volumes = VolumeSet(placed(wanted), PAGE)
    except UsageError:
        return
    ends = [*(volume.start for volume in volumes), ADDRESS_LIMIT][1:]
    assert [volumes.limit_of(volume) for volume in volumes] == [
        end - volume.start for volume, end in zip(volumes, ends, strict=True)
    ]


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
        ([Volume("a", ADDRESS_LIMIT, 0)], "too large"),
        ([Volume("a", 0, 0), Volume("b", 0, 0)], "too large"),
        ([Volume("a", 4096, 1)], "2\\^48"),
        ([Volume("a", -STEP, 1)], "2\\^48"),
        ([Volume("a", 0, -1)], "2\\^48"),
        *(([Volume(name, 0, 1)], "not a volume name") for name in ["", ".", "-a", "a/b", "..", "a\n", "é", "x" * 65]),
    ],
)
def test_sets_that_make_no_sense_are_refused(volumes: list[Volume], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        VolumeSet(volumes, PAGE)
