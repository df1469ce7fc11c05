"""Direct writes bring the same bytes as those through the page cache, and both see what the other wrote."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool import files
from mirrortool.errors import InputOutputError, UnusableVolumeError
from mirrortool.files import ALIGNMENT
from mirrortool.store.directio import ARENA_BYTES, Arenas
from mirrortool.store.flat import FlatStore
from mirrortool.volume import place
from tests.fakes.descriptors import open_descriptors
from tests.fakes.volumes import pattern, read_bytes, write_file

PAGE = 4096
COUNT = 3 * ARENA_BYTES // PAGE
SIZE = COUNT * PAGE + 100
"""The last page is partial."""


def open_store(directory: Path, page_size: int = PAGE) -> FlatStore:
    write_file(f"{directory}/v", SIZE)
    return FlatStore(place([("v", SIZE)], page_size), {"v": files.open_file(f"{directory}/v", write=True)})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FlatStore]:
    """One that is written past the page cache."""
    store = open_store(tmp_path)
    store.write_direct(True)
    yield store
    store.close()


def put(store: FlatStore, page: int, *buffers: bytes) -> None:
    store.write([(page, buffers, sum(map(len, buffers)))])


def read(store: FlatStore, page: int, count: int) -> bytes:
    buffers = [memoryview(bytearray(PAGE)) for _ in range(count)]
    store.read_into(page, buffers)
    return b"".join(buffers)


def use_of_direct(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Offsets of the writes that go past the page cache."""
    found: list[int] = []
    real = os.pwrite

    def pwrite(descriptor: int, data: files.Buffer, offset: int) -> int:
        if _is_direct(descriptor):
            assert offset % ALIGNMENT == 0 and len(data) % ALIGNMENT == 0
            found.append(offset)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return found


def _is_direct(descriptor: int) -> bool:
    flags = next(
        line for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines() if line.startswith("flags")
    )
    return bool(int(flags.split()[1], 8) & os.O_DIRECT)


@pytest.mark.parametrize(
    "lengths",
    [[PAGE], [PAGE] * 5, [16 * PAGE], [ARENA_BYTES], [ARENA_BYTES + PAGE], [PAGE, ARENA_BYTES, PAGE, 2 * PAGE]],
    ids=str,
)
def test_runs_of_any_length_are_written_whole(store: FlatStore, tmp_path: Path, lengths: list[int]) -> None:
    buffers = [pattern(number, length) for number, length in enumerate(lengths, 1)]
    put(store, 7, *buffers)
    expected = b"".join(buffers)
    assert read_bytes(f"{tmp_path}/v")[7 * PAGE : 7 * PAGE + len(expected)] == expected


def test_whole_pages_go_past_the_cache_and_the_partial_last_one_through_it(
    store: FlatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = use_of_direct(monkeypatch)
    put(store, COUNT - 2, *(pattern(number, PAGE) for number in range(3)))
    assert used == [(COUNT - 2) * PAGE]
    whole = b"".join(pattern(number, PAGE) for number in range(3))
    assert read_bytes(f"{tmp_path}/v")[(COUNT - 2) * PAGE :] == whole[: 2 * PAGE + 100]
    assert os.path.getsize(f"{tmp_path}/v") == SIZE


def test_what_was_read_or_written_through_the_cache_before_is_not_seen_again(store: FlatStore) -> None:
    store.write_direct(False)
    put(store, 3, pattern(1, 4 * PAGE))
    assert read(store, 3, 4) == pattern(1, 4 * PAGE)
    store.write_direct(True)
    put(store, 4, pattern(2, PAGE))
    store.zero(5, 1)
    put(store, 5, pattern(3, PAGE))
    store.zero(6, 1)
    expected = pattern(1, PAGE) + pattern(2, PAGE) + pattern(3, PAGE) + bytes(PAGE)
    assert read(store, 3, 4) == expected
    store.sync()
    store.drop_caches()
    assert read(store, 3, 4) == expected


def test_neighbours_written_and_read_at_once_by_several_threads_keep_their_bytes(store: FlatStore) -> None:
    """Readers fill the cache beside the pages that are being written; nothing old may stay there."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            read(store, 0, 64)

    def work(number: int) -> None:
        for turn in range(20):
            for page in range(number, 64, 4):
                put(store, page, pattern(turn * 64 + page, PAGE))

    looking = threading.Thread(target=look)
    looking.start()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    looking.join()
    expected = b"".join(pattern(19 * 64 + page, PAGE) for page in range(64))
    assert read(store, 0, 64) == expected
    store.sync()
    store.drop_caches()
    assert read(store, 0, 64) == expected


def test_random_runs_both_ways_leave_what_a_plain_array_has(store: FlatStore, tmp_path: Path) -> None:
    draw, expected = random.Random(3), bytearray(SIZE)
    for number in range(120):
        store.write_direct(draw.random() < 0.7)
        page, count = draw.randrange(COUNT - 8), draw.randint(1, 8)
        if draw.random() < 0.2:
            store.zero(page, count)
            data = bytes(count * PAGE)
        else:
            data = pattern(number, count * PAGE)
            put(store, page, *(data[i : i + PAGE] for i in range(0, len(data), PAGE)))
        expected[page * PAGE : (page + count) * PAGE] = data
    store.sync()
    assert read_bytes(f"{tmp_path}/v") == expected


def test_pages_that_share_a_page_of_memory_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path, page_size=512)
    with pytest.raises(UnusableVolumeError, match="pages of 512 bytes"):
        store.write_direct(True)
    store.close()


def test_file_system_without_direct_writes_is_told_and_the_cache_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str, flags: int, *arguments: int, **more: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "tmpfs before 6.6")
        return real(path, flags, *arguments, **more)

    store = open_store(tmp_path)
    monkeypatch.setattr(os, "open", refuse)
    assert store.find_why_not_direct()
    with pytest.raises(UnusableVolumeError, match="does not take O_DIRECT") as caught:
        store.write_direct(True)
    assert "--io buffered" in str(caught.value)
    put(store, 0, pattern(1, PAGE))
    assert read(store, 0, 1) == pattern(1, PAGE)
    store.close()


def test_blocks_larger_than_a_page_of_memory_are_noticed_when_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "not aligned")

    store = open_store(tmp_path)
    monkeypatch.setattr(os, "preadv", refuse)
    assert store.find_why_not_direct()
    monkeypatch.undo()
    assert store.find_why_not_direct() is None
    store.close()


def test_write_that_is_refused_as_not_aligned_goes_through_the_cache(
    store: FlatStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def refuse(descriptor: int, data: files.Buffer, offset: int) -> int:
        if _is_direct(descriptor):
            raise OSError(errno.EINVAL, "not aligned")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    put(store, 0, pattern(1, PAGE), pattern(2, PAGE))
    put(store, 9, pattern(3, PAGE))
    assert read(store, 0, 2) + read(store, 9, 1) == pattern(1, PAGE) + pattern(2, PAGE) + pattern(3, PAGE)


def test_any_other_error_is_raised(store: FlatStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "boom")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(InputOutputError):
        put(store, 0, pattern(1, PAGE))


def test_locks_stay_with_the_first_descriptor(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    (file,) = store._opened.values()
    file.lock(exclusive=True, what="the volume")
    store.write_direct(True)
    store.write_direct(False)
    with files.open_file(f"{tmp_path}/v") as other:
        assert other.is_locked()
    store.close()


def test_descriptors_end_with_the_store(tmp_path: Path) -> None:
    before = open_descriptors()
    store = open_store(tmp_path)
    for wanted in (True, True, False, True):
        store.write_direct(wanted)
    store.close()
    assert open_descriptors() == before


def test_arenas_are_used_again_the_latest_first() -> None:
    arenas = Arenas()
    with arenas.borrow() as first, arenas.borrow() as second:
        assert first is not second
        assert len(first) == ARENA_BYTES
    with arenas.borrow() as again:
        assert again is first
