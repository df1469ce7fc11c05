"""Each driver keeps what store/interface.py promises, whatever the storage is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import HostError, NoSpaceError, UnusableVolumeError
from mirrortool.store.interface import Store
from mirrortool.volume import VolumeSet, place
from tests.fakes.volumes import pattern
from tests.store.conformance import DRIVERS, ROOM, Opened

PAGE = 4096
SIZES = {"a": 5 * PAGE + 100, "b": 3 * PAGE, "c": 0}


@pytest.fixture(params=DRIVERS)
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Volumes a, which ends inside a page, b, and c, which is empty."""
    with DRIVERS[request.param].open(place(list(SIZES.items()), PAGE)) as opened:
        yield opened
        opened.store.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened.store


def put(store: Store, name: str, page: int, *buffers: bytes) -> None:
    """Write one run of a volume, in several buffers."""
    store.write([(first(store, name) + page, buffers, sum(map(len, buffers)))])


def first(store: Store, name: str) -> int:
    return store.volumes.first_page(store.volumes[name])


def read(store: Store, name: str, page: int, count: int) -> bytes:
    """Whole pages of a volume, in a buffer each."""
    size = store.page_size
    buffers = [memoryview(bytearray(b"\xee" * size)) for _ in range(count)]
    if count:
        store.read_into(first(store, name) + page, buffers)
    return b"".join(buffers)


def content(store: Store, name: str) -> bytes:
    """A volume, up to its end; what is after that in its last page reads as zeros."""
    volume = store.volumes[name]
    found = read(store, name, 0, store.volumes.page_count(volume))
    assert not any(found[volume.size :])
    return found[: volume.size]


def contents(store: Store) -> dict[str, bytes]:
    return {volume.name: content(store, volume.name) for volume in store.volumes}


def reopened(opened: Opened) -> Store:
    """The same volumes, closed and opened again."""
    volumes = opened.store.volumes
    opened.store.close()
    opened.store = opened.reopen(volumes)
    return opened.store


def checkpoint(store: Store) -> None:
    store.begin_checkpoint()
    store.sync()
    store.end_checkpoint()


def check_runs(store: Store, name: str, page: int, count: int) -> None:
    """The runs are ascending, apart, inside what was asked for, and what is outside them reads as zeros."""
    start = first(store, name) + page
    runs = list(store.data_runs(start, count))
    assert all(start <= run and length > 0 and run + length <= start + count for run, length in runs)
    assert all(before[0] + before[1] <= after[0] for before, after in pairwise(runs))
    has_data = {number for run, length in runs for number in range(run, run + length)}
    for number in range(count):
        if start + number not in has_data:
            assert not any(read(store, name, page + number, 1))


def test_new_volumes_have_their_sizes_and_read_as_zeros(store: Store) -> None:
    assert store.page_size == PAGE
    assert store.volumes == place(list(SIZES.items()), PAGE)
    assert contents(store) == {name: bytes(size) for name, size in SIZES.items()}
    for name, size in SIZES.items():
        capacity = store.capacity(name)
        assert capacity is None or capacity >= max(size, ROOM)


def test_what_is_written_is_read_at_once_and_nothing_else_changes(store: Store) -> None:
    """Several runs in one call, several buffers in one run, cut at pages."""
    one, two, three = pattern(1, PAGE), pattern(2, 2 * PAGE), pattern(3, PAGE)
    base = first(store, "a")
    store.write([(base, [one], PAGE), (base + 2, [two[:PAGE], memoryview(two)[PAGE:]], 2 * PAGE)])
    put(store, "b", 1, three)
    assert content(store, "a") == (one + bytes(PAGE) + two).ljust(SIZES["a"], b"\0")
    assert content(store, "b") == bytes(PAGE) + three + bytes(PAGE)
    whole = memoryview(bytearray(3 * PAGE))
    store.read_into(base + 1, [whole[:PAGE], whole[PAGE:]])
    assert bytes(whole) == bytes(PAGE) + two


def test_what_is_written_again_is_replaced(store: Store) -> None:
    put(store, "b", 0, pattern(1, 3 * PAGE))
    put(store, "b", 1, pattern(2, PAGE))
    assert content(store, "b") == pattern(1, PAGE) + pattern(2, PAGE) + pattern(1, 3 * PAGE)[2 * PAGE :]


def test_a_partial_last_page_is_cut_when_written_and_padded_when_read(store: Store) -> None:
    data = pattern(1, 3 * PAGE)
    put(store, "a", 3, data[:PAGE], data[PAGE:])
    assert content(store, "a") == bytes(3 * PAGE) + data[: 2 * PAGE + 100]
    assert read(store, "a", 5, 1) == data[2 * PAGE : 2 * PAGE + 100].ljust(PAGE, b"\0")
    store.resize("a", 6 * PAGE)
    assert read(store, "a", 5, 1) == data[2 * PAGE : 2 * PAGE + 100].ljust(PAGE, b"\0"), "what was cut does not appear"


@pytest.mark.parametrize(("page", "count"), [(0, 6), (5, 1), (2, 2), (0, 1)])
def test_zeroed_pages_read_as_zeros_and_no_others(store: Store, page: int, count: int) -> None:
    data = bytearray(pattern(1, SIZES["a"]))
    put(store, "a", 0, bytes(data).ljust(6 * PAGE, b"\0"))
    put(store, "b", 0, pattern(2, 3 * PAGE))
    store.zero(first(store, "a") + page, count)
    length = len(data[page * PAGE : (page + count) * PAGE])
    data[page * PAGE : (page + count) * PAGE] = bytes(length)
    assert content(store, "a") == data
    assert content(store, "b") == pattern(2, 3 * PAGE)
    put(store, "a", page, pattern(3, PAGE))
    assert read(store, "a", page, 1)[:100] == pattern(3, 100)


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, 3 * PAGE, 3 * PAGE + 7, 5 * PAGE + 99, 5 * PAGE + 101, 9 * PAGE + 5])
def test_a_resized_volume_keeps_whole_pages_and_reads_as_zeros_after_them(store: Store, size: int) -> None:
    before = SIZES["a"]
    data = pattern(1, before)
    put(store, "a", 0, data.ljust(6 * PAGE, b"\0"))
    put(store, "b", 0, pattern(2, 3 * PAGE))
    store.resize("a", size)
    assert store.volumes["a"].size == size
    kept = before if size >= before else size - size % PAGE
    assert content(store, "a") == data[:kept].ljust(size, b"\0")
    store.resize("a", 9 * PAGE + 5)
    assert content(store, "a") == data[:kept].ljust(9 * PAGE + 5, b"\0"), "what was cut off does not come back"
    assert content(store, "b") == pattern(2, 3 * PAGE)


def test_an_empty_volume_can_grow_and_be_written(store: Store) -> None:
    store.resize("c", PAGE + 1)
    put(store, "c", 0, pattern(1, 2 * PAGE))
    assert content(store, "c") == pattern(1, PAGE + 1)
    store.resize("c", 0)
    store.resize("c", PAGE)
    assert content(store, "c") == bytes(PAGE)


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (PAGE - 1, 2), (100, 2 * PAGE), (5 * PAGE, 100), (0, 5)])
def test_bytes_are_read_wherever_they_begin(store: Store, offset: int, length: int) -> None:
    data = pattern(1, SIZES["a"])
    put(store, "a", 0, data.ljust(6 * PAGE, b"\0"))
    buffer = memoryview(bytearray(length))
    store.read_bytes("a", offset, buffer)
    assert bytes(buffer) == data[offset : offset + length]


def test_data_runs_have_all_that_is_not_zeros(store: Store) -> None:
    for name in ("a", "b"):
        check_runs(store, name, 0, 3)
    put(store, "a", 1, pattern(1, PAGE))
    put(store, "a", 5, pattern(1, PAGE))
    put(store, "b", 0, pattern(2, PAGE))
    for page, count in [(0, 6), (1, 1), (2, 4), (5, 1), (0, 2)]:
        check_runs(store, "a", page, count)
    covered = {number for run, count in store.data_runs(first(store, "a"), 6) for number in range(run, run + count)}
    assert {first(store, "a") + 1, first(store, "a") + 5} <= covered
    store.zero(first(store, "a"), 6)
    check_runs(store, "a", 0, 6)


def test_what_is_durable_is_there_when_it_is_opened_again(opened: Opened) -> None:
    store = opened.store
    put(store, "a", 0, pattern(1, 6 * PAGE))
    put(store, "b", 2, pattern(2, PAGE))
    store.zero(first(store, "a") + 1, 2)
    store.resize("b", 2 * PAGE + 9)
    store.resize("c", 5)
    store.sync()
    before = contents(store)
    assert contents(reopened(opened)) == before


def test_it_can_be_opened_again_and_again_and_leaves_no_descriptor(opened: Opened) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        put(reopened(opened), "a", 0, pattern(1, PAGE))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_was_reserved_can_be_written(store: Store) -> None:
    base = first(store, "a")
    store.reserve([(base, 2), (base + 4, 1), (first(store, "b"), 3)], 6 * PAGE)
    store.reserve([], 0)
    assert contents(store) == {name: bytes(size) for name, size in SIZES.items()}
    put(store, "a", 0, pattern(1, 2 * PAGE))
    put(store, "a", 4, pattern(2, PAGE))
    put(store, "b", 0, pattern(3, 3 * PAGE))
    assert content(store, "b") == pattern(3, 3 * PAGE)


def test_where_no_room_is_left_reserving_fails_and_every_byte_stays(opened: Opened) -> None:
    store, base = opened.store, first(opened.store, "a")
    if opened.fill is None:
        pytest.skip("this store is not filled here")
    put(store, "a", 0, pattern(1, 2 * PAGE))
    opened.fill()
    before = contents(store)
    with pytest.raises(NoSpaceError):
        store.reserve([(base, 2), (base + 3, 2)], 4 * PAGE)
    assert contents(store) == before
    store.reserve([(base, 2)], 2 * PAGE)
    put(store, "a", 0, pattern(2, 2 * PAGE))
    store.zero(base, 2)
    put(store, "a", 0, pattern(3, 2 * PAGE))
    store.sync()
    assert read(store, "a", 0, 2) == pattern(3, 2 * PAGE)


@pytest.mark.parametrize("was_reserved", [True, False])
def test_what_was_freed_is_room_for_others_after_a_checkpoint(opened: Opened, was_reserved: bool) -> None:
    store, base = opened.store, first(opened.store, "a")
    if opened.fill is None:
        pytest.skip("this store is not filled here")
    store.reserve([(first(store, "b"), 3)], 3 * PAGE)
    put(store, "b", 0, pattern(1, 3 * PAGE))
    if not was_reserved:
        checkpoint(store)
    opened.fill()
    store.zero(first(store, "b"), 3)
    with pytest.raises(NoSpaceError):
        store.reserve([(base, 3)], 3 * PAGE)
    assert store.frees_wait
    store.sync()
    with pytest.raises(NoSpaceError):
        store.reserve([(base, 3)], 3 * PAGE)
    store.begin_checkpoint()
    store.sync()
    with pytest.raises(NoSpaceError):
        store.reserve([(base, 3)], 3 * PAGE)
    store.end_checkpoint()
    store.reserve([(base, 3)], 3 * PAGE)
    put(store, "a", 0, pattern(2, 3 * PAGE))
    assert contents(store) == {"a": pattern(2, 3 * PAGE).ljust(SIZES["a"], b"\0"), "b": bytes(3 * PAGE), "c": b""}


def test_after_a_failed_sync_none_succeeds(opened: Opened) -> None:
    """The storage may have dropped what it could not write, so that a later success would prove nothing."""
    store = opened.store
    put(store, "a", 0, pattern(1, PAGE))
    with opened.failing(store), pytest.raises(HostError) as failed:
        store.sync()
    for _ in range(2):
        with pytest.raises(type(failed.value)) as again:
            store.sync()
        assert (again.value.what, again.value.where) == (failed.value.what, failed.value.where)
    checked = reopened(opened)
    put(checked, "a", 0, pattern(2, PAGE))
    checked.sync()


def test_a_checkpoint_makes_room_usable_and_changes_no_byte(store: Store) -> None:
    put(store, "a", 0, pattern(1, 6 * PAGE))
    checkpoint(store)
    store.zero(first(store, "a"), 6)
    before = contents(store)
    checkpoint(store)
    assert not store.frees_wait, "all was zeroed before a checkpoint that is durable"
    assert contents(store) == before
    put(store, "a", 0, pattern(2, 6 * PAGE))
    store.begin_checkpoint()
    store.zero(first(store, "a"), 2)
    store.begin_checkpoint()  # the one before failed
    put(store, "a", 1, pattern(3, PAGE))
    store.sync()
    store.end_checkpoint()
    assert content(store, "a") == (bytes(PAGE) + pattern(3, PAGE) + pattern(2, 6 * PAGE)[2 * PAGE :])[: SIZES["a"]]


def test_it_says_whether_it_can_be_written_past_the_cache(store: Store) -> None:
    put(store, "a", 0, pattern(1, 3 * PAGE))
    if store.find_why_not_direct() is None:
        store.write_direct(True)
        store.write_direct(True)
        put(store, "a", 1, pattern(2, PAGE))
        put(store, "a", 5, pattern(3, PAGE))
    else:
        with pytest.raises(UnusableVolumeError, match="--io buffered"):
            store.write_direct(True)
        put(store, "a", 1, pattern(2, PAGE))
        put(store, "a", 5, pattern(3, PAGE))
    store.write_direct(False)
    assert read(store, "a", 0, 2) == pattern(1, PAGE) + pattern(2, PAGE)
    assert read(store, "a", 5, 1) == pattern(3, 100).ljust(PAGE, b"\0")
    store.sync()
    store.drop_caches()
    assert read(store, "a", 0, 2) == pattern(1, PAGE) + pattern(2, PAGE)


def test_threads_at_once_write_zero_and_read_their_own_pages_while_another_syncs(store: Store) -> None:
    pages, turns = 48, 12
    store.resize("a", pages * PAGE)
    failures: list[BaseException] = []
    is_over = threading.Event()

    def work(number: int) -> None:
        try:
            mine = range(number, pages, 4)
            for turn in range(turns):
                for page in mine:
                    put(store, "a", page, pattern(turn * 100 + page, PAGE))
                store.zero(first(store, "a") + mine[turn % len(mine)], 1)
                for page in mine:
                    is_zero = page == mine[turn % len(mine)]
                    expected = bytes(PAGE) if is_zero else pattern(turn * 100 + page, PAGE)
                    assert read(store, "a", page, 1) == expected
                store.reserve([(first(store, "a") + mine[0], 1)], PAGE)
        except BaseException as error:
            failures.append(error)

    def sync() -> None:
        try:
            while not is_over.is_set():
                store.sync()
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    syncing = threading.Thread(target=sync)
    for thread in (*workers, syncing):
        thread.start()
    for thread in workers:
        thread.join()
    is_over.set()
    syncing.join()
    assert not failures
    zeroed = {range(number, pages, 4)[(turns - 1) % (pages // 4)] for number in range(4)}
    for page in range(pages):
        expected = bytes(PAGE) if page in zeroed else pattern((turns - 1) * 100 + page, PAGE)
        assert read(store, "a", page, 1) == expected


class Model:
    """What the volumes must hold: an array of bytes each."""

    def __init__(self, volumes: VolumeSet) -> None:
        self.page_size = volumes.page_size
        self.bytes = {volume.name: bytearray(volume.size) for volume in volumes}

    def pages(self, name: str) -> int:
        return -(-len(self.bytes[name]) // self.page_size)

    def put(self, name: str, page: int, data: bytes) -> None:
        held, begin = self.bytes[name], page * self.page_size
        length = min(len(data), len(held) - begin)
        held[begin : begin + length] = data[:length]

    def resize(self, name: str, size: int) -> None:
        held = self.bytes[name]
        if size < len(held):
            del held[size - size % self.page_size :]
        held.extend(bytes(size - len(held)))


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "write", "write", "zero", "zero", "resize", "sync", "checkpoint", "reopen", "failed"]
        ),
        st.sampled_from("ab"),
        st.integers(0, 12),
        st.integers(1, 5),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_store_is_an_array_of_bytes_for_each_volume(name: str) -> None:
    driver = DRIVERS[name]

    @settings(max_examples=driver.examples, deadline=None)
    @given(_STEPS, st.sampled_from(driver.page_sizes))
    def run(steps: list[tuple[str, str, int, int]], page_size: int) -> None:
        volumes = place([("a", 8 * page_size + 11), ("b", 3 * page_size)], page_size)
        with driver.open(volumes) as opened:
            model = Model(volumes)
            try:
                for number, step in enumerate(steps):
                    _take(opened, model, number, *step)
                assert contents(opened.store) == model.bytes
                for volume in opened.store.volumes:
                    check_runs(opened.store, volume.name, 0, opened.store.volumes.page_count(volume))
            finally:
                opened.store.close()

    run()


def _take(opened: Opened, model: Model, number: int, what: str, name: str, page: int, count: int) -> None:
    """One step, in the store and in the model."""
    store, size = opened.store, model.page_size
    if what == "resize":
        store.resize(name, page * size + number * 7)
        model.resize(name, page * size + number * 7)
    elif what == "sync":
        store.sync()
    elif what == "checkpoint":
        checkpoint(store)
    elif what == "failed":
        store.begin_checkpoint()
    elif what == "reopen":
        checkpoint(store)
        reopened(opened)
    elif (count := min(count, model.pages(name) - page)) > 0:
        data = pattern(number, count * size) if what == "write" else bytes(count * size)
        if what == "write":
            put(store, name, page, *_cut(data, size))
        else:
            store.zero(first(store, name) + page, count)
        model.put(name, page, data)


def _cut(data: bytes, size: int) -> Sequence[Any]:
    """As buffers of a page and of the remainder."""
    return [part for part in (data[:size], memoryview(data)[size:]) if part]
