"""A flat store keeps each volume's bytes in its own file or device, and touches nothing after its end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool import files
from mirrortool.errors import InputOutputError, NoSpaceError
from mirrortool.files import File
from mirrortool.store import flat
from mirrortool.store.flat import FlatStore, page_runs
from mirrortool.volume import VolumeSet, place
from tests.fakes.volumes import (
    fast_directory,
    fill_up,
    loop_device,
    loop_mount,
    pattern,
    read_bytes,
    write_file,
)

PAGE = 4096
BEHIND = 3 * PAGE


@contextmanager
def store_of(directory: str, *sizes: int, page_size: int = PAGE) -> Iterator[FlatStore]:
    """Volumes v0, v1 … of these sizes in files of the same names."""
    named = [(f"v{number}", size) for number, size in enumerate(sizes)]
    for name, size in named:
        write_file(f"{directory}/{name}", size)
    opened = {name: files.open_file(f"{directory}/{name}", write=True) for name, _ in named}
    store = FlatStore(place(named, page_size), opened)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def directory() -> Iterator[str]:
    with fast_directory() as path:
        yield path


@pytest.fixture(params=["file", "device", "file, direct", "device, direct"])
def one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[FlatStore, str]]:
    """A store of one volume of 5 pages and 100 bytes, in a file, or in a device that is longer and not empty.

    Written through the page cache, or past it.
    """
    size = 5 * PAGE + 100
    is_direct = request.param.endswith("direct")
    if request.param.startswith("file"):
        with store_of(str(tmp_path), size) as store:
            store.write_direct(is_direct)
            yield store, f"{tmp_path}/v0"
        return
    with loop_device(tmp_path, 64 * PAGE) as device, files.open_file(device, write=True) as file:
        file.pwrite(pattern(9, 64 * PAGE - size), size)
        store = FlatStore(place([("v0", size)], PAGE), {"v0": file})
        store.write_direct(is_direct)
        yield store, device
        store.write_direct(False)


def put(store: FlatStore, page: int, buffers: Sequence[files.Buffer]) -> None:
    """Write one run."""
    store.write([(page, buffers, sum(map(len, buffers)))])


def reserve(store: FlatStore, runs: list[tuple[int, int]]) -> None:
    store.reserve(runs, sum(count for _, count in runs) * PAGE)


def read(store: FlatStore, page: int, count: int) -> bytes:
    buffers = [memoryview(bytearray(b"\xee" * PAGE)) for _ in range(count)]
    store.read_into(page, buffers)
    return b"".join(buffers)


def after_end(path: str, size: int) -> bytes:
    return read_bytes(path)[size:]


def test_a_partial_last_page_is_cut_when_written_and_padded_when_read(one: tuple[FlatStore, str]) -> None:
    store, path = one
    size = 5 * PAGE + 100
    before = after_end(path, size)
    data = pattern(1, 2 * PAGE)
    put(store, 4, [data[:PAGE], data[PAGE:]])
    assert read(store, 4, 2) == data[: PAGE + 100] + bytes(PAGE - 100)
    put(store, 5, [memoryview(pattern(2, PAGE))])
    assert read(store, 5, 1) == pattern(2, 100) + bytes(PAGE - 100)
    store.sync()
    assert after_end(path, size) == before
    if path.endswith("v0"):
        assert os.path.getsize(path) == size


@pytest.mark.parametrize("most", [1, PAGE - 1, 3 * PAGE + 5, 1 << 30])
def test_runs_are_written_whole_each_at_its_place(
    one: tuple[FlatStore, str], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernel writes a part of what it is given, and only the last run is cut."""
    store, path = one
    before = after_end(path, 5 * PAGE + 100)
    one_page, two, last = pattern(1, PAGE), pattern(2, 2 * PAGE), pattern(3, 2 * PAGE)

    def pwritev(descriptor: int, buffers: Sequence[files.Buffer], offset: int) -> int:
        return os.pwrite(descriptor, b"".join(buffers)[: max(most, PAGE // 8)], offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    store.write([(0, [one_page], PAGE), (2, [two[:PAGE], two[PAGE:]], 2 * PAGE), (4, [last], 2 * PAGE)])
    assert read(store, 0, 6) == one_page + bytes(PAGE) + two + last[: PAGE + 100].ljust(2 * PAGE, b"\0")
    assert after_end(path, 5 * PAGE + 100) == before


def test_a_run_of_any_number_of_buffers_is_written(directory: str) -> None:
    count = 2 * files.IOV_MAX + 3
    with store_of(directory, count * 512, page_size=512) as store:
        buffers = [b"%0512d" % number for number in range(count)]
        store.write([(0, buffers, count * 512)])
        assert read_bytes(f"{directory}/v0") == b"".join(buffers)


@pytest.mark.parametrize(("page", "count"), [(0, 6), (5, 1), (2, 2), (0, 1)])
def test_zeroed_pages_read_as_zeros_and_no_others(one: tuple[FlatStore, str], page: int, count: int) -> None:
    store, path = one
    size = 5 * PAGE + 100
    data = bytearray(pattern(1, size))
    before = after_end(path, size)
    put(store, 0, [bytes(data).ljust(6 * PAGE, b"\0")])
    store.zero(page, count)
    data[page * PAGE : (page + count) * PAGE] = bytes(len(data[page * PAGE : (page + count) * PAGE]))
    assert read(store, 0, 6) == bytes(data).ljust(6 * PAGE, b"\0")
    assert after_end(path, size) == before


SIZES = [0, 1, PAGE - 1, PAGE, 3 * PAGE, 3 * PAGE + 7, 5 * PAGE + 99, 5 * PAGE + 100, 5 * PAGE + 101, 9 * PAGE + 5]


@pytest.mark.parametrize("size", SIZES)
def test_a_resized_volume_keeps_whole_pages_and_reads_as_zeros_after_it(one: tuple[FlatStore, str], size: int) -> None:
    store, path = one
    before = 5 * PAGE + 100
    data = pattern(1, before)
    put(store, 0, [data.ljust(6 * PAGE, b"\0")])
    untouched = after_end(path, max(size, before))
    store.resize("v0", size)
    kept = before if size >= before else size - size % PAGE
    assert store.volumes["v0"].size == size
    pages = -(-size // PAGE)
    if pages:
        assert read(store, 0, pages) == data[:kept].ljust(pages * PAGE, b"\0")
    assert after_end(path, max(size, before)) == untouched
    if path.endswith("v0"):
        assert os.path.getsize(path) == size
        assert read_bytes(path) == data[:kept].ljust(size, b"\0")


def test_a_device_that_grows_over_old_data_reads_as_zeros_there(one: tuple[FlatStore, str]) -> None:
    store, path = one
    store.resize("v0", 8 * PAGE)
    put(store, 6, [pattern(3, PAGE)])
    store.resize("v0", 6 * PAGE)
    store.resize("v0", 8 * PAGE)
    assert read(store, 6, 2) == bytes(2 * PAGE)
    assert not any(read_bytes(path)[: 8 * PAGE])


def test_reading_past_the_end_gives_zeros(one: tuple[FlatStore, str]) -> None:
    store, _ = one
    put(store, 0, [pattern(1, 6 * PAGE)])
    assert read(store, 5, 4) == pattern(1, 6 * PAGE)[5 * PAGE : 5 * PAGE + 100].ljust(4 * PAGE, b"\0")


def test_a_file_that_became_shorter_reads_as_zeros(directory: str) -> None:
    with store_of(directory, 4 * PAGE) as store:
        put(store, 0, [pattern(1, 4 * PAGE)])
        os.truncate(f"{directory}/v0", PAGE + 10)
        assert read(store, 0, 4) == pattern(1, PAGE + 10).ljust(4 * PAGE, b"\0")


def test_volumes_do_not_touch_each_other(directory: str) -> None:
    with store_of(directory, 2 * PAGE, 3 * PAGE, PAGE + 1) as store:
        volumes = store.volumes
        for number, volume in enumerate(volumes):
            put(store, volumes.first_page(volume), [pattern(number, volumes.page_count(volume) * PAGE)])
        store.zero(volumes.first_page(volumes["v1"]), 3)
        store.resize("v2", 5)
    assert read_bytes(f"{directory}/v0") == pattern(0, 2 * PAGE)
    assert read_bytes(f"{directory}/v1") == bytes(3 * PAGE)
    assert read_bytes(f"{directory}/v2") == bytes(5)


def test_data_runs_cover_all_data_and_skip_holes(directory: str) -> None:
    grain = 1 << 20
    with store_of(directory, 64 * grain + 100, 64 * grain) as store:
        step = grain // PAGE
        base = store.volumes.first_page(store.volumes["v1"])
        assert list(store.data_runs(0, 64 * step + 1)) == []
        put(store, 5 * step + 1, [pattern(1, PAGE)])
        put(store, 64 * step, [pattern(1, PAGE)])
        put(store, base + 7 * step, [pattern(1, PAGE)])
        runs = list(store.data_runs(0, 64 * step + 1))
        covered = {page for first, count in runs for page in range(first, first + count)}
        assert {5 * step + 1, 64 * step} <= covered
        assert len(covered) < step
        assert all(first <= base + 7 * step < first + count for first, count in store.data_runs(base, 64 * step))
        assert list(store.data_runs(base, 7 * step)) == []
        [(first, count)] = store.data_runs(5 * step + 1, 1)
        assert (first, count) == (5 * step + 1, 1)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=10), st.sampled_from([4, 8, 16]))
def test_page_runs_are_the_pages_that_extents_touch(parts: list[tuple[int, int]], page_size: int) -> None:
    extents, end = [], 0
    for gap, length in parts:
        extents.append((end + gap, end + gap + length))
        end += gap + length
    touched = {byte // page_size for start, stop in extents for byte in range(start, stop)}
    runs = list(page_runs(extents, page_size))
    assert {page for first, last in runs for page in range(first, last)} == touched
    assert all(before[1] < after[0] for before, after in pairwise(runs))


def test_reserving_on_a_full_file_system_changes_no_byte(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 4 << 20) as mounted, store_of(mounted, 3 << 20, 3 << 20) as store:
        data = pattern(1, 64 * PAGE)
        put(store, 0, [data])
        store.sync()
        fill_up(mounted, leave=1 << 20)
        base = store.volumes.first_page(store.volumes["v1"])
        before = [read_bytes(f"{mounted}/v{number}") for number in (0, 1)]
        with pytest.raises(NoSpaceError):
            reserve(store, [(64, 64), (128, 500), (base, 700)])
        assert [read_bytes(f"{mounted}/v{number}") for number in (0, 1)] == before
        reserve(store, [(0, 64)])
        put(store, 0, [pattern(2, 64 * PAGE)])
        store.sync()


def test_what_was_reserved_can_be_written_when_the_rest_is_gone(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 4 << 20) as mounted, store_of(mounted, (3 << 20) + 5) as store:
        reserve(store, [(0, 100), (200, 50), ((3 << 20) // PAGE, 1)])
        fill_up(mounted)
        put(store, 0, [pattern(1, 100 * PAGE)])
        put(store, 200, [pattern(2, 50 * PAGE)])
        put(store, (3 << 20) // PAGE, [pattern(3, PAGE)])
        store.sync()
        assert os.path.getsize(f"{mounted}/v0") == (3 << 20) + 5


def test_with_room_to_spare_nothing_is_reserved_block_by_block(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 10 * PAGE + flat.RESERVE_MARGIN)
    asked: list[int] = []
    monkeypatch.setattr(File, "reserve", lambda _self, offset, _length: asked.append(offset))
    with store_of(directory, 20 * PAGE) as store:
        reserve(store, [(0, 10)])
        assert asked == []
        reserve(store, [(0, 5), (6, 6)])
        assert asked == [0, 6 * PAGE]


def test_a_failing_write_is_an_error_with_the_path(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwritev(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with store_of(directory, PAGE) as store:
        monkeypatch.setattr(os, "pwritev", pwritev)
        with pytest.raises(InputOutputError, match="v0"):
            put(store, 0, [bytes(PAGE)])


def test_dropped_caches_are_read_again_from_the_device(one: tuple[FlatStore, str]) -> None:
    store, _ = one
    put(store, 1, [pattern(1, PAGE)])
    store.sync()
    store.drop_caches()
    assert read(store, 1, 1) == pattern(1, PAGE)


def test_pages_outside_every_volume_are_a_bug(directory: str) -> None:
    with store_of(directory, PAGE) as store, pytest.raises(AssertionError):
        put(store, 1, [bytes(PAGE)])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "zero", "resize"]), st.integers(0, 12), st.integers(1, 5)), max_size=15
    ),
    st.sampled_from([512, 4096, 65536]),
)
def test_a_store_is_an_array_of_bytes(steps: list[tuple[str, int, int]], page_size: int) -> None:
    content = bytearray(8 * page_size + 11)
    with fast_directory() as path, store_of(path, len(content), page_size=page_size) as store:
        for number, (what, page, count) in enumerate(steps):
            if what == "resize":
                size = page * page_size + number * 7
                if size < len(content):
                    del content[size - size % page_size :]
                content.extend(bytes(size - len(content)))
                store.resize("v0", size)
                continue
            count = min(count, -(-len(content) // page_size) - page)
            if count <= 0:
                continue
            data = pattern(number, count * page_size) if what == "write" else bytes(count * page_size)
            if what == "write":
                put(store, page, [data])
            else:
                store.zero(page, count)
            length = min(len(data), len(content) - page * page_size)
            content[page * page_size : page * page_size + length] = data[:length]
        assert read_bytes(f"{path}/v0") == content
        assert isinstance(store.volumes, VolumeSet)


def test_after_a_failed_sync_none_succeeds(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops what it could not write, and the next fdatasync of the same file says nothing of it."""
    with store_of(directory, 4 * PAGE) as store:
        put(store, 0, [bytes(PAGE)])

        def fail(_file: File) -> None:
            raise InputOutputError("cannot make durable")

        with monkeypatch.context() as patch:
            patch.setattr(File, "fdatasync", fail)
            with pytest.raises(InputOutputError):
                store.sync()
        with pytest.raises(InputOutputError):
            store.sync()
