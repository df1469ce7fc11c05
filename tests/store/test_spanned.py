"""A store over backings: what goes where, what comes free, and what it costs. Crashes: test_spanned_crash.py."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import InputOutputError, NoSpaceError
from mirrortool.files import File
from mirrortool.store import cellroom, spanned
from mirrortool.store.backing import Backing, make_backing
from mirrortool.store.backingformat import BackingHeader
from mirrortool.store.backingset import BackingSet
from mirrortool.store.spanned import SpannedStore
from mirrortool.store.syncgate import SyncGate
from mirrortool.volume import VolumeSet, place
from tests.fakes.backings import EXTENT, MIRROR, leave_no_room, make_backings
from tests.fakes.volumes import fast_directory, fill_up, loop_device, loop_mount, pattern

PAGE = 512
PAGES = EXTENT // PAGE
VOLUMES = place([("a", 40 * EXTENT), ("b", 2 * EXTENT + 100)], PAGE)
B = VOLUMES.first_page(VOLUMES["b"])


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


def put(store: SpannedStore, page: int, data: bytes) -> None:
    store.reserve([(page, len(data) // PAGE)], len(data))
    store.write([(page, [data], len(data))])


def read(store: SpannedStore, page: int, count: int = 1) -> bytes:
    found = memoryview(bytearray(b"\xee" * count * PAGE))
    store.read_into(page, [found])
    return bytes(found)


def checkpoint(store: SpannedStore) -> None:
    store.begin_checkpoint()
    store.sync()
    store.end_checkpoint()


def test_an_extent_gets_a_cell_when_it_is_first_written_and_no_other_does(directory: str) -> None:
    made = make_backings(directory, 6)
    store = made.open(VOLUMES)
    put(store, 5, pattern(1, PAGE))
    put(store, 6, pattern(2, PAGE))
    put(store, B, pattern(3, PAGE))
    store.sync()
    assert sorted(filter(None, made.used()[0])) == [EXTENT, VOLUMES["b"].start]
    store.close()
    assert made.used() == [[EXTENT, VOLUMES["b"].start, None, None, None, None]]
    assert not any(record for record, _ in made.cells()[0][2:] if any(record)), "no claim is left"


def test_extents_lie_on_backings_of_any_size_in_proportion_to_their_room(directory: str) -> None:
    made = make_backings(directory, 20, 10, 5)
    store = made.open(VOLUMES)
    for extent in range(21):
        put(store, extent * PAGES, pattern(extent, PAGE))
    checkpoint(store)
    store.close()
    used = [sum(address is not None for address in addresses) for addresses in made.used()]
    assert used == [12, 6, 3]
    store = made.open(VOLUMES)
    for extent in range(21):
        assert read(store, extent * PAGES) == pattern(extent, PAGE)
    store.close()


def test_a_run_over_extents_that_lie_together_is_written_with_one_call(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_backings(directory, 10)
    store = made.open(VOLUMES)
    calls: list[int] = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, at: (calls.append(at), real(fd, buffers, at))[1])
    data = pattern(1, 3 * EXTENT)
    put(store, 2, data)
    assert len(calls) == 1
    assert read(store, 0, 4 * PAGES) == bytes(2 * PAGE) + data + bytes(2 * PAGE)
    store.close()


@pytest.mark.parametrize("cells", [(12,), (5, 4, 3)])
def test_a_run_over_extents_that_lie_apart_is_cut_where_they_do(directory: str, cells: tuple[int, ...]) -> None:
    """Its buffers, too, wherever they end."""
    store = make_backings(directory, *cells).open(VOLUMES)
    for extent in (3, 1, 2, 0):
        put(store, extent * PAGES, pattern(extent, PAGE))
    data = pattern(9, 4 * EXTENT)
    for cuts in ([PAGE], [EXTENT - PAGE, EXTENT + PAGE], [], [2 * EXTENT, 3 * EXTENT]):
        edges = [0, *cuts, len(data)]
        buffers = [data[begin:end] for begin, end in pairwise(edges)]
        store.write([(1, buffers, len(data))])
        assert read(store, 0, 5 * PAGES) == pattern(0, PAGE) + data + bytes((PAGES - 1) * PAGE)
        data = data[::-1]
    store.close()


def test_a_zeroed_extent_is_given_to_another_after_a_checkpoint_and_only_then(directory: str) -> None:
    made = make_backings(directory, 2)
    store = made.open(VOLUMES)
    put(store, 0, pattern(1, 2 * EXTENT))
    checkpoint(store)
    store.zero(0, PAGES)
    store.sync()  # a drain inside a window
    with pytest.raises(NoSpaceError, match="full") as full:
        put(store, B, pattern(2, PAGE))
    assert full.value.remedy == "mirrortool backing add M PATH:SIZE"
    store.begin_checkpoint()
    store.zero(PAGES, PAGES)  # which that checkpoint does not cover
    store.sync()
    store.end_checkpoint()
    assert store.frees_wait
    put(store, B, pattern(2, PAGE))
    with pytest.raises(NoSpaceError):
        put(store, B + PAGES, pattern(3, PAGE))
    checkpoint(store)
    assert not store.frees_wait
    put(store, B + PAGES, pattern(3, PAGE))
    assert read(store, B, 2 * PAGES) == (pattern(2, PAGE).ljust(EXTENT, b"\0") + pattern(3, PAGE)).ljust(
        2 * EXTENT, b"\0"
    )
    assert read(store, 0, 2 * PAGES) == bytes(2 * EXTENT)
    store.close()


def test_an_extent_that_is_written_before_the_checkpoint_needs_no_other_cell(directory: str) -> None:
    store = make_backings(directory, 1).open(VOLUMES)
    for turn in range(3):
        put(store, 0, pattern(turn, EXTENT))
        store.sync()
        store.zero(0, PAGES)
        put(store, 1, pattern(turn, PAGE))
        assert read(store, 0, PAGES) == bytes(PAGE) + pattern(turn, PAGE) + bytes(EXTENT - 2 * PAGE)
    assert store.frees_wait
    checkpoint(store)
    assert not store.frees_wait
    assert read(store, 1) == pattern(2, PAGE)
    store.close()


def test_one_that_is_written_after_it_has_begun_gets_another(directory: str) -> None:
    made = make_backings(directory, 2)
    store = made.open(VOLUMES)
    put(store, 0, pattern(1, EXTENT))
    checkpoint(store)
    before = made.used()[0].index(0)
    store.zero(0, PAGES)
    store.begin_checkpoint()
    put(store, 1, pattern(2, PAGE))
    store.sync()
    assert made.used()[0].index(0) != before
    store.end_checkpoint()
    assert read(store, 0, PAGES) == bytes(PAGE) + pattern(2, PAGE) + bytes(EXTENT - 2 * PAGE)
    store.close()


@pytest.mark.parametrize("parts", [[(0, 4)], [(0, 2), (2, 2)], [(3, 1), (0, 1), (1, 2)]])
def test_an_extent_whose_pages_all_became_zeros_is_freed_however_that_came(
    directory: str, parts: list[tuple[int, int]]
) -> None:
    made = make_backings(directory, 2)
    store = made.open(VOLUMES)
    put(store, 0, pattern(1, EXTENT))
    for page, count in parts:
        store.zero(page, count)
    assert list(store.data_runs(0, PAGES)) == []
    checkpoint(store)
    store.close()
    assert made.used() == [[None, None]]


def test_a_volumes_last_extent_is_freed_with_its_last_page(directory: str) -> None:
    made = make_backings(directory, 3)
    store = made.open(VOLUMES)
    put(store, B + 2 * PAGES, pattern(1, PAGE))
    assert read(store, B + 2 * PAGES) == pattern(1, 100).ljust(PAGE, b"\0")
    store.zero(B + 2 * PAGES, 1)
    checkpoint(store)
    store.close()
    assert made.used() == [[None] * 3]


def test_what_lies_after_a_volumes_end_is_not_seen_when_it_grows(directory: str) -> None:
    """A redo that was interrupted may have left it there."""
    made = make_backings(directory, 9)
    store = made.open(place([("b", 6 * EXTENT)], PAGE))
    put(store, 0, pattern(1, 6 * EXTENT))
    store.sync()
    store.close()
    store = made.open(place([("b", EXTENT + 100)], PAGE))
    assert read(store, 0, PAGES + 1) == pattern(1, EXTENT + 100).ljust(EXTENT + PAGE, b"\0")
    store.resize("b", 5 * EXTENT)
    assert read(store, 0, 5 * PAGES) == pattern(1, EXTENT + 100).ljust(5 * EXTENT, b"\0")
    store.close()


def test_a_reader_never_sees_what_another_extent_has_in_a_cell_that_came_free(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked at the map; then its extent is freed, and the cell given to another, before it reads."""
    store = make_backings(directory, 1).open(VOLUMES)
    put(store, 0, pattern(1, PAGE))
    real, is_done = File.pread_into, threading.Event()

    def pread_into(file: File, buffers: list[memoryview], offset: int) -> int:
        if not is_done.is_set():
            is_done.set()
            store.zero(0, PAGES)
            checkpoint(store)
            put(store, B, pattern(2, PAGE))
        return real(file, buffers, offset)

    monkeypatch.setattr(File, "pread_into", pread_into)
    assert read(store, 0) == bytes(PAGE)
    assert is_done.is_set()
    store.close()


def test_nothing_is_taken_from_a_backing_that_is_drained(directory: str) -> None:
    made = make_backings(directory, 4, 4)
    store = made.open(VOLUMES, draining=[0])
    for extent in range(4):
        put(store, extent * PAGES, pattern(extent, PAGE))
    with pytest.raises(NoSpaceError):
        put(store, 4 * PAGES, pattern(4, PAGE))
    store.sync()
    store.close()
    assert made.used()[0] == [None] * 4


def test_all_or_none_of_the_extents_of_a_window_get_cells(directory: str) -> None:
    made = make_backings(directory, 2, 1)
    store = made.open(VOLUMES)
    with pytest.raises(NoSpaceError, match="3 extents are free, 4 more are needed"):
        store.reserve([(0, 1), (PAGES, 3 * PAGES)], 4 * EXTENT)
    store.reserve([(0, 3 * PAGES)], 3 * EXTENT)
    store.close()


def test_a_claim_that_a_sync_makes_is_waited_for_where_it_is_needed(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space is missing only because a sync that runs beside has it."""
    monkeypatch.setattr(cellroom, "CLAIM_BYTES", EXTENT)
    store = make_backings(directory, 4).open(VOLUMES)
    put(store, 0, pattern(1, EXTENT))
    put(store, PAGES, pattern(1, EXTENT))
    is_syncing, may_end = threading.Event(), threading.Event()
    real = File.fdatasync

    def fdatasync(file: File) -> None:
        is_syncing.set()
        assert may_end.wait(10)
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(File, "fdatasync", fdatasync)
        syncing = threading.Thread(target=store.sync)
        syncing.start()
        assert is_syncing.wait(10)
        writing = threading.Thread(target=put, args=(store, 2 * PAGES, pattern(2, 2 * EXTENT)))
        writing.start()
        may_end.set()
        syncing.join(10)
        writing.join(10)
    assert read(store, 2 * PAGES, 2 * PAGES) == pattern(2, 2 * EXTENT)
    store.close()


def test_blocks_are_reserved_where_a_file_system_is_nearly_full(tmp_path: Path) -> None:
    """And where they cannot be, the extents that had got cells give them back."""
    with loop_mount(tmp_path, 8 << 20) as mounted:
        made = make_backings(mounted, 3, extent=1 << 20)
        store = made.open(place([("a", 3 << 20)], 4096))
        fill_up(mounted, leave=1 << 20)
        with pytest.raises(NoSpaceError, match="reserve space"):
            store.reserve([(0, 512)], 512 * 4096)
        store.sync()
        assert made.used() == [[None] * 3]
        store.reserve([(0, 128)], 128 * 4096)
        fill_up(mounted)
        store.write([(0, [pattern(1, 128 * 4096)], 128 * 4096)])
        store.sync()
        store.close()


def test_with_room_to_spare_nothing_is_reserved_block_by_block(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(File, "reserve", lambda _self, offset, _length: asked.append(offset))
    store = make_backings(directory, 3).open(VOLUMES)
    monkeypatch.setattr(files, "free_bytes", lambda _: 2 * EXTENT + spanned.RESERVE_MARGIN)
    store.reserve([(0, 2 * PAGES)], 2 * EXTENT)
    assert asked == []
    store.reserve([(0, 2 * PAGES + 1)], 3 * EXTENT)
    assert len(asked) == 3
    store.close()


def test_a_sync_that_fails_in_a_claim_is_the_stores(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an error of an earlier write the kernel tells only one caller."""
    monkeypatch.setattr(cellroom, "CLAIM_BYTES", EXTENT)
    store = make_backings(directory, 3).open(VOLUMES)

    def fail(_file: File) -> None:
        raise InputOutputError("cannot make durable", where="b0")

    with monkeypatch.context() as patch:
        patch.setattr(File, "fdatasync", fail)
        with pytest.raises(InputOutputError):
            store.reserve([(0, 1)], PAGE)
    with pytest.raises(InputOutputError):
        store.sync()
    store.close()


def test_a_backing_that_was_replaced_while_it_was_written_is_found(directory: str) -> None:
    made = make_backings(directory, 2, 2)
    store = made.open(VOLUMES)
    put(store, 0, pattern(1, EXTENT))
    os.remove(made.paths[1])
    with pytest.raises(InputOutputError, match="deleted or replaced"):
        store.sync()
    store.close()


def large(directory: str, extent: int, sizes: list[int], volumes: VolumeSet) -> SpannedStore:
    """Backings that are sparse files, as the program makes them."""
    gate, backings = SyncGate(), []
    for number, size in enumerate(sizes):
        header = BackingHeader.of_new(bytes([number]) * 16, MIRROR, extent, size, 0)
        file = files.open_file(f"{directory}/large{number}", write=True, create=True)
        make_backing(file, header)
        backings.append(Backing(file, header, gate))
    return SpannedStore(volumes, BackingSet(backings, gate), owner="M", write=True)


def test_pages_at_random_addresses_cost_memory_and_disk_in_proportion_to_what_is_written(directory: str) -> None:
    """10,000 pages in a volume of 64 TiB."""
    volumes = place([("a", 64 << 40)], 4096)
    store = large(directory, 64 << 10, [400 << 20, 600 << 20], volumes)
    chance = random.Random(1)
    pages = sorted(chance.sample(range(volumes.page_count(volumes["a"])), 10_000))
    data = pattern(1, 4096)
    tracemalloc.start()
    for begin in range(0, len(pages), 1000):
        part = pages[begin : begin + 1000]
        store.reserve([(page, 1) for page in part], len(part) * 4096)
        store.write([(page, [data], 4096) for page in part])
        checkpoint(store)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1200 * len(pages)
    assert most < 2000 * len(pages)
    used = sum(os.stat(f"{directory}/large{number}").st_blocks * 512 for number in range(2))
    assert used < 1.2 * len(pages) * (4096 + 32)
    assert [page for page, count in store.data_runs(0, volumes.page_count(volumes["a"])) for _ in range(count)] == pages
    assert all(read_one(store, page) == data for page in pages[::97])
    store.close()


def read_one(store: SpannedStore, page: int) -> bytes:
    found = memoryview(bytearray(4096))
    store.read_into(page, [found])
    return bytes(found)


def test_sparse_data_takes_an_extent_for_each_run(directory: str) -> None:
    """On a device, too; and what is a hole in a file's cell is not read."""
    volumes = place([("a", 1 << 30)], 4096)
    store = large(directory, 1 << 20, [32 << 20], volumes)
    runs = [(256 * number + 3, 5) for number in range(0, 20, 2)]
    for page, count in runs:
        store.reserve([(page, count)], count * 4096)
        store.write([(page, [pattern(page, count * 4096)], count * 4096)])
    assert list(store.data_runs(0, 1 << 18)) == runs
    assert sum(1 for _ in store._allocation.places.each(0, 1 << 20)) == len(runs)
    store.close()


def test_a_block_device_is_a_backing_like_a_file(tmp_path: Path) -> None:
    with loop_device(tmp_path, 8 << 20) as device:
        volumes = place([("a", 64 << 20)], 4096)
        header = BackingHeader.of_new(b"u" * 16, MIRROR, 1 << 20, 8 << 20, 0)
        gate = SyncGate()
        file = files.open_file(device, write=True, exclusive=True)
        make_backing(file, header)
        store = SpannedStore(volumes, BackingSet([Backing(file, header, gate)], gate), owner="M", write=True)
        store.reserve([(700, 300)], 300 * 4096)
        store.write([(700, [pattern(1, 300 * 4096)], 300 * 4096)])
        checkpoint(store)
        assert list(store.data_runs(0, 16384)) == [(512, 512)]
        store.zero(512, 256)
        checkpoint(store)
        store.close()
        gate = SyncGate()
        opened = BackingSet([Backing(files.open_file(device, write=True), header, gate)], gate)
        store = SpannedStore(volumes, opened, owner="M", write=False)
        assert list(store.data_runs(0, 16384)) == [(768, 256)]
        found = memoryview(bytearray(232 * 4096))
        store.read_into(768, [found])
        assert bytes(found) == pattern(1, 300 * 4096)[68 * 4096 :]
        store.close()


def test_when_no_room_is_left_what_has_a_cell_can_still_be_written(directory: str) -> None:
    store = make_backings(directory, 4).open(VOLUMES)
    put(store, 0, pattern(1, PAGE))
    leave_no_room(store)
    put(store, 3, pattern(2, PAGE))
    with pytest.raises(NoSpaceError):
        store.write([(PAGES, [pattern(2, PAGE)], PAGE)])
    store.close()
