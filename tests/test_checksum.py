"""Page sums and state sums are what journals on disk hold, and find what they must find."""

from __future__ import annotations

import random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mirrortool.checksum import SUM_BYTES, pack_sums, page_sums, state_term, unpack_sums, volume_term

SIZES = [512, 4096, 65536]
SUMS = st.dictionaries(st.integers(0, 1 << 53), st.integers(0, (1 << 64) - 1), max_size=20)


@pytest.mark.parametrize("size", SIZES)
def test_a_zero_page_has_the_sum_zero(size: int) -> None:
    assert page_sums([bytes(size)] * 3, size) == bytes(3 * SUM_BYTES)


@pytest.mark.parametrize("size", SIZES)
def test_a_sum_is_the_digest_xor_that_of_a_zero_page(size: int) -> None:
    page = bytes([1]) * size
    expected = xxhash.xxh3_64_intdigest(page) ^ xxhash.xxh3_64_intdigest(bytes(size))
    assert page_sums([page], size) == expected.to_bytes(8, "big")


def test_values_on_disk_never_change() -> None:
    """Another value here makes every journal and mirror unreadable."""
    assert page_sums([b"\1" * 512], 512).hex() == "510916f2a79d4c73"
    assert page_sums([b"\1" * 4096], 4096).hex() == "d303b748798b7562"
    assert page_sums([b"\1" * 65536], 65536).hex() == "db44beb5331a6982"
    assert state_term([7], [0x0123456789ABCDEF]) == 0x64A01209ED5DE6A6
    assert volume_term("disk", 1 << 20) == 0x9DAC2B6E5A072C58


def test_no_pages_have_no_sums() -> None:
    assert page_sums([], 512) == b""
    assert state_term([], []) == 0


@given(st.lists(st.integers(0, 255), min_size=1, max_size=8))
def test_sums_stand_in_the_order_of_the_pages(values: list[int]) -> None:
    pages = [bytes([value]) * 512 for value in values]
    assert page_sums(pages, 512) == b"".join(page_sums([page], 512) for page in pages)


@given(st.lists(st.integers(0, (1 << 64) - 1)))
def test_packing_is_big_endian_and_reversible(sums: list[int]) -> None:
    packed = pack_sums(sums)
    assert packed == b"".join(each.to_bytes(8, "big") for each in sums)
    assert list(unpack_sums(packed)) == sums
    assert list(unpack_sums(memoryview(packed))) == sums


@given(SUMS, st.randoms())
def test_the_state_sum_does_not_depend_on_the_order(sums: dict[int, int], chance: random.Random) -> None:
    shuffled = list(sums)
    chance.shuffle(shuffled)
    assert state_term(shuffled, [sums[page] for page in shuffled]) == state_term(list(sums), list(sums.values()))


@given(SUMS)
def test_zero_pages_add_nothing(sums: dict[int, int]) -> None:
    nonzero = {page: each for page, each in sums.items() if each}
    assert state_term(list(sums), list(sums.values())) == state_term(list(nonzero), list(nonzero.values()))


@given(SUMS, SUMS)
def test_a_change_costs_its_old_and_its_new_term(before: dict[int, int], changes: dict[int, int]) -> None:
    after = before | changes
    old = state_term(list(changes), [before.get(page, 0) for page in changes])
    new = state_term(list(changes), list(changes.values()))
    whole = state_term(list(before), list(before.values()))
    assert whole ^ old ^ new == state_term(list(after), list(after.values()))


def test_misplaced_and_exchanged_pages_change_the_state_sum() -> None:
    assert state_term([1], [5]) != state_term([2], [5])
    assert state_term([1, 2], [5, 6]) != state_term([1, 2], [6, 5])
    assert state_term([1, 2], [5, 5]) != 0


def test_name_and_size_of_a_volume_count() -> None:
    terms = {volume_term(name, size) for name in ("disk", "disk2", "d") for size in (0, 1, 512, 1 << 40)}
    assert len(terms) == 12
