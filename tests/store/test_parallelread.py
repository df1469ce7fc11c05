"""What is compared is everything that could differ, once, in pieces of bounded size, and nothing that is a hole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import InputOutputError
from mirrortool.store import parallelread as pieces_module
from mirrortool.store.pagesums import PageSums
from mirrortool.store.parallelread import PIECE_BYTES, PieceReader, Run, for_each_piece, pieces
from mirrortool.volume import VolumeSet, place
from tests.fakes.volumes import fast_directory, pattern
from tests.fakes.waiting import PATIENCE_SECONDS

PAGE = 65536
COUNT = 200


class FakeStore:
    """A store that knows its data runs, and has pages that hold their own number."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.reads: list[Run] = []

    def data_runs(self, page: int, count: int) -> Iterator[Run]:
        for first, number in self.runs:
            start, end = max(first, page), min(first + number, page + count)
            if start < end:
                yield start, end - start

    def read_into(self, page: int, buffers: list[memoryview]) -> None:
        self.reads.append((page, sum(map(len, buffers)) // PAGE))
        for buffer in buffers:
            buffer[:] = b"".join(pattern(page + i, PAGE) for i in range(len(buffer) // PAGE))


def runs_of(pages: set[int]) -> list[Run]:
    found: list[Run] = []
    for page in sorted(pages):
        if found and page == found[-1][0] + found[-1][1]:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((page, 1))
    return found


# Sums are sparse by the block: 512 pages. So exact covering needs pages that far apart.
GRAIN = 512


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, COUNT - 1), max_size=60),
    st.sets(st.integers(0, COUNT - 1), max_size=8),
    st.integers(1, GRAIN),
)
def test_pieces_cover_the_union_of_data_and_sums(data: set[int], summed: set[int], last: int) -> None:
    """In units of 512 pages, as sums are sparse by the block."""
    size = ((COUNT - 1) * GRAIN + last) * PAGE - 5
    volumes = place([("before", PAGE), ("a", size)], PAGE)
    base = volumes.first_page(volumes["a"])
    count = volumes.page_count(volumes["a"])
    with fast_directory() as path, closing(PageSums(path, volumes, 0, write=True)) as sums:
        sums.apply({base + unit * GRAIN: 1 for unit in summed})
        store = FakeStore([(base + first * GRAIN, number * GRAIN) for first, number in runs_of(data)])
        found = list(pieces(store, sums, volumes["a"]))
    expected = {base + unit * GRAIN + i for unit in data | summed for i in range(GRAIN)} & set(
        range(base, base + count)
    )
    covered = [page for first, number in found for page in range(first, first + number)]
    assert len(covered) == len(set(covered)), "no page comes twice"
    assert covered == sorted(covered)
    # A block at the end of the table is cut where the file ends, which is after the last page that has a sum.
    assert {base + unit * GRAIN for unit in summed} <= set(covered) <= expected
    assert {base + unit * GRAIN + i for unit in data for i in range(GRAIN)} & expected <= set(covered)
    assert all(number <= PIECE_BYTES // PAGE for _, number in found)


def test_an_empty_volume_has_no_pieces() -> None:
    volumes = place([("a", 0), ("b", PAGE)], PAGE)
    with fast_directory() as path, closing(PageSums(path, volumes, 0, write=True)) as sums:
        assert list(pieces(FakeStore([]), sums, volumes["a"])) == []


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_piece_is_worked_on_once_with_its_own_bytes(threads: int) -> None:
    work_list = [(first, 1 + first % 16) for first in range(0, 2000, 16)]
    seen: list[Run] = []
    lock = threading.Lock()

    def work(reader: PieceReader, page: int, count: int) -> None:
        assert bytes(reader.buffer[: count * PAGE][-16:]) == pattern(page + count - 1, PAGE)[-16:]
        with lock:
            seen.append((page, count))

    store = FakeStore([])
    for_each_piece(store, PAGE, work_list, work, threads)
    assert sorted(seen) == work_list
    assert sorted(store.reads) == work_list


@pytest.mark.parametrize("where", ["work", "read", "list"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_error_stops_the_rest_and_is_raised(
    where: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def fail_at(page: int, place: str) -> None:
        if where == place and page == 50:
            raise InputOutputError("broken")

    def work_list() -> Iterator[Run]:
        for page in range(10_000):
            fail_at(page, "list")
            yield page, 1

    def work(_reader: PieceReader, page: int, _count: int) -> None:
        fail_at(page, "work")
        done.append(page)

    monkeypatch.setattr(FakeStore, "read_into", lambda _self, page, _buffers: fail_at(page, "read"))
    before = threading.active_count()
    with pytest.raises(InputOutputError, match="broken"):
        for_each_piece(FakeStore([]), PAGE, work_list(), work, threads)
    assert 50 not in done
    assert len(done) < 10_000
    assert threading.active_count() == before


def test_sums_of_a_piece_are_those_of_its_pages() -> None:
    volumes: VolumeSet = place([("a", PAGE)], PAGE)
    assert len(volumes) == 1
    reader = PieceReader(FakeStore([]), PAGE)
    reader.read(3, 2)
    both = reader.sums(2)
    reader.read(4, 1)
    assert reader.sums(1) == both[8:]
    assert pieces_module.THREADS == 2


def test_a_store_that_waits_for_each_read_is_read_by_as_many_threads_as_it_says() -> None:
    class SlowStore(FakeStore):
        """Each read waits until five are on their way."""

        readers = 5
        together = threading.Barrier(5, timeout=PATIENCE_SECONDS)

        def read_into(self, page: int, buffers: list[memoryview]) -> None:
            self.together.wait()
            super().read_into(page, buffers)

    store = SlowStore([])
    for_each_piece(store, PAGE, [(page, 1) for page in range(15)], lambda *_: None)  # type: ignore[arg-type]
    assert sorted(store.reads) == [(page, 1) for page in range(15)]
