"""Current sums: a caller gets the newest, also while a checkpoint applies them to the table."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mirrortool.checksum import unpack_sums
from mirrortool.errors import CorruptJournalError, HostError, host_error
from mirrortool.record import currentsums
from mirrortool.record.currentsums import CurrentSums
from mirrortool.store.pagesums import PageSums
from mirrortool.volume import VolumeSet, place
from tests.fakes.volumes import fast_directory

PAGE = 512
PAGES = 3000
BLOCK = 512


@pytest.fixture
def table() -> Iterator[PageSums]:
    volumes: VolumeSet = place([("a", PAGES * PAGE)], PAGE)
    with fast_directory() as path:
        sums = PageSums(path, volumes, 0, write=True)
        sums.rebuild()
        sums.apply({page: 1000 + page for page in range(PAGES)})
        yield sums
        sums.close()


def known(sums: CurrentSums, *pages: int) -> list[int]:
    return [sums.read(page, 1)[0] for page in pages]


def test_a_swap_says_what_was_there_in_order_also_of_one_page_twice(table: PageSums) -> None:
    sums = CurrentSums(table)
    assert sums.swap([5, 6, 5], [1, 2, 3]) == [1005, 1006, 1]
    assert sums.swap([5], [4]) == [3]
    assert known(sums, 4, 5, 6, 7) == [1004, 4, 2, 1007]


def test_what_did_not_happen_is_undone(table: PageSums) -> None:
    sums = CurrentSums(table)
    sums.swap([6], [9])
    sums.restore([5, 5, 6], sums.swap([5, 5, 6], [1, 2, 3]))
    assert known(sums, 5, 6) == [1005, 9]


def test_reads_join_blocks_the_changed_and_the_applying(table: PageSums) -> None:
    sums = CurrentSums(table)
    sums.swap(range(500, 530), range(30))
    sums.begin_applying()
    sums.swap(range(510, 515), range(100, 105))
    expected = [1000 + page for page in range(PAGES)]
    expected[500:530] = range(30)
    expected[510:515] = range(100, 105)
    for first, count in ((0, PAGES), (511, 2), (2999, 1), (505, 1000), (1024, 512)):
        assert sums.read(first, count) == expected[first : first + count]
    sums.apply()
    assert sums.read(0, PAGES) == expected
    assert list(unpack_sums(table.read(505, 10))) == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    sums.begin_applying()
    sums.apply()
    assert sums.changed_pages == 0
    assert list(unpack_sums(table.read(0, PAGES))) == expected
    assert table.state_sum == table.compute_state_sum()


def test_a_block_that_is_loaded_while_its_sums_are_applied_is_not_kept_as_it_was(
    table: PageSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is read, then changed, then the block is kept: it must not be the one from before."""
    sums = CurrentSums(table)
    sums.swap([5], [1])
    sums._blocks.clear()
    sums.begin_applying()
    applied: list[bool] = []

    class Lock:
        """Lets the other thread in as soon as the lock is released."""

        def __init__(self, lock: Any) -> None:
            self._lock = lock

        def __enter__(self) -> None:
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()
            if not applied:
                applied.append(True)
                sums.apply()

    monkeypatch.setattr(sums, "_table_lock", Lock(sums._table_lock))
    assert known(sums, 5) == [1]
    assert applied
    assert known(sums, 5) == [1]
    assert sums.swap([5], [2]) == [1]


def test_sums_that_are_applied_while_they_are_read_are_not_missed(table: PageSums) -> None:
    """The block is read as it was, then a checkpoint ends: nothing is applied any more, but the block is old."""
    sums = CurrentSums(table)
    sums.read(0, 1)
    sums.swap([5], [1])
    sums.begin_applying()
    applied: list[bool] = []

    class Block(array):  # type: ignore[type-arg]  # it takes no parameter before Python 3.12
        def __getitem__(self, place: Any) -> Any:
            found = super().__getitem__(place)
            if not applied:
                applied.append(True)
                sums.apply()
            return found

    sums._blocks[0] = Block("Q", sums._blocks[0])
    assert sums.read(0, 10)[5] == 1
    assert applied


def fail_apply(times: int, real: Callable[[Mapping[int, int]], None]) -> Callable[[Mapping[int, int]], None]:
    left = [times]

    def apply(changes: Mapping[int, int]) -> None:
        if left[0]:
            left[0] -= 1
            half = dict(list(changes.items())[: len(changes) // 2])
            real(half)
            raise host_error(OSError(errno.ENOSPC, "full"), "sums", "write")
        real(changes)

    return apply


@pytest.mark.parametrize("times", [1, 3])
def test_an_apply_that_failed_half_way_is_done_again_whole(
    table: PageSums, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(currentsums, "_SLICE_PAGES", 100)
    sums = CurrentSums(table)
    sums.swap(range(900), range(900))
    sums.begin_applying()
    monkeypatch.setattr(table, "apply", fail_apply(times, table.apply))
    for _ in range(times):
        with pytest.raises(HostError):
            sums.apply()
        assert sums.read(0, PAGES) == [*range(900), *range(1900, 1000 + PAGES)]
    sums.swap([3], [77])
    sums.apply()
    assert table.state_sum == table.compute_state_sum()
    assert list(unpack_sums(table.read(0, 905)))[-7:] == [898, 899, *range(1900, 1905)]
    assert known(sums, 2, 3) == [2, 77]
    assert all(table.is_segment_right(page) for page in (0, PAGES - 1))


def test_a_sum_that_rotted_is_found_before_it_is_used(table: PageSums) -> None:
    with open(table.path_of(0), "r+b") as file:
        file.seek(8 * 700)
        file.write(b"rot")
    sums = CurrentSums(table)
    with pytest.raises(CorruptJournalError):
        sums.swap([3, 700], [1, 2])
    with pytest.raises(CorruptJournalError):
        sums.read(3, 1)


def test_few_blocks_are_kept(table: PageSums, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(currentsums, "_BLOCKS_MAX", 2)
    sums = CurrentSums(table)
    for _ in range(2):
        assert sums.read(0, PAGES) == [1000 + page for page in range(PAGES)]
        assert len(sums._blocks) <= 2
