"""An export of a state: clients read the state, and what they changed of it, byte for byte; the rest is holes."""

from __future__ import annotations

import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.change import Change
from mirrortool.errors import InputOutputError, NoSpaceError
from mirrortool.serve.exports import ReadOnlyExport, WritableExport
from mirrortool.serve.scratch import CHUNK_PAGES, Scratch
from mirrortool.volume import Volume, VolumeSet
from tests.fakes.pagesinmemory import PagesInMemory

PAGE = 512
CHUNK = CHUNK_PAGES * PAGE
SIZE = 3 * CHUNK + 5 * PAGE + 77
VOLUMES = VolumeSet([Volume("other", 0, PAGE), Volume("disk", 1 << 48, SIZE)], PAGE)
DISK = VOLUMES["disk"]


def state(seed: int = 1) -> PagesInMemory:
    """A volume of which about a third is zeros, in runs."""
    chance = random.Random(seed)
    pages = [chance.randbytes(PAGE) if chance.random() < 0.7 else bytes(PAGE) for _ in range(SIZE // (8 * PAGE) + 1)]
    data = b"".join(page for page in pages for _ in range(8))[:SIZE]
    return PagesInMemory(VOLUMES, {"disk": data, "other": b"o" * PAGE})


def read(export: ReadOnlyExport, offset: int, length: int) -> bytes:
    buffer = bytearray(b"?" * length)
    export.read_into(offset, memoryview(buffer))
    return bytes(buffer)


class Model:
    """The volume as plain bytes, and which pages must have a slot."""

    def __init__(self, data: bytes, slots_max: int) -> None:
        self.data = bytearray(data)
        self.slots_max = slots_max
        self.held: set[int] = set()
        self.holes: set[int] = set()

    def change(self, change: Change) -> bool:
        """False if there is no room for a part of it: first of a page, then pages, then first of a page."""
        start, end = change.offset, change.offset + change.length
        head = min(end, -(-start // PAGE) * PAGE)
        tail = max(head, end // PAGE * PAGE)
        for low, high, is_whole in ((start, head, False), (head, tail, True), (tail, end, False)):
            if low == high:
                continue
            pages = set(range(low // PAGE, -(-high // PAGE)))
            if is_whole and change.data is None and not change.keep_allocated:
                self.held -= pages
                self.holes |= pages
            elif len(self.held | pages) > self.slots_max:
                return False
            else:
                self.held |= pages
                self.holes -= pages
            data = change.data
            self.data[low:high] = bytes(high - low) if data is None else data[low - start : high - start]
        return True


# Many that meet pages and chunks exactly, many that do not.
OFFSETS = st.one_of(
    st.integers(0, SIZE - 1),
    st.integers(0, SIZE // PAGE - 1).map(lambda page: page * PAGE),
    st.sampled_from([0, CHUNK, 2 * CHUNK, 3 * CHUNK]),
)
LENGTHS = st.one_of(
    st.integers(1, 3 * PAGE), st.integers(1, 40).map(lambda n: n * PAGE), st.sampled_from([CHUNK, 2 * CHUNK, SIZE])
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    offset = draw(OFFSETS)
    length = min(draw(LENGTHS), SIZE - offset)
    kind = draw(st.sampled_from(["write", "write", "zero", "keep"]))
    if kind == "write":
        return Change(offset, length, draw(st.integers(1, 255)).to_bytes() * length)
    return Change(offset, length, None, kind == "keep")


@settings(max_examples=60, deadline=None)
@given(st.lists(changes(), max_size=12), st.integers(1, 2 * CHUNK_PAGES), st.integers(0, 3))
def test_a_writable_export_is_as_a_model(made: list[Change], slots: int, seed: int) -> None:
    below = state(seed)
    model = Model(below.content["disk"], slots)
    with tempfile.TemporaryDirectory() as directory:
        scratch = Scratch(directory, PAGE, slots * PAGE + 11)
        export = WritableExport(below, DISK, "", scratch)
        for change in made:
            has_room = model.change(change)
            if has_room:
                export.change([change])
            else:
                with pytest.raises(NoSpaceError, match="--scratch-size"):
                    export.change([change])
            assert scratch.bytes_used == len(model.held) * PAGE
        check(export, below, model)
        scratch.close()


def check(export: WritableExport, below: PagesInMemory, model: Model) -> None:
    assert read(export, 0, SIZE) == model.data
    chance = random.Random(7)
    for _ in range(20):
        offset = chance.randrange(SIZE)
        length = min(chance.choice([1, 100, PAGE, 5 * PAGE, CHUNK]), SIZE - offset)
        assert read(export, offset, length) == model.data[offset : offset + length]
        found = list(export.extents(offset, length))
        assert sum(size for size, _ in found) == length and all(size > 0 for size, _ in found)
        at = offset
        for size, is_hole in found:
            assert not is_hole or not any(model.data[at : at + size]), "a hole reads as zeros"
            at += size
    whole: list[bool] = []
    for size, is_hole in export.extents(0, SIZE):
        whole += [is_hole] * -(-size // PAGE)
    zeros = {page for page in range(len(whole)) if not any(below.content["disk"][page * PAGE : (page + 1) * PAGE])}
    held = model.held
    assert {page for page, is_hole in enumerate(whole) if is_hole} == (zeros | model.holes) - held


@pytest.mark.parametrize("offset", [0, 1, PAGE, CHUNK - 1, 3 * CHUNK, SIZE - 77, SIZE - 1])
@pytest.mark.parametrize("length", [1, 77, PAGE, 3 * PAGE, CHUNK + 5])
def test_a_read_only_export_has_the_bytes_of_the_state(offset: int, length: int) -> None:
    below = state()
    export = ReadOnlyExport(below, DISK, "of a test")
    length = min(length, SIZE - offset)
    assert read(export, offset, length) == below.content["disk"][offset : offset + length]
    assert (export.name, export.size, export.read_only, export.page_size) == ("disk", SIZE, True, PAGE)
    assert sum(size for size, _ in export.extents(offset, length)) == length


def test_what_the_scratch_has_is_not_read_below(tmp_path: Path) -> None:
    below = state()
    export = WritableExport(below, DISK, "", Scratch(str(tmp_path), PAGE, SIZE))
    export.change([Change(0, 4 * PAGE, bytes(4 * PAGE)), Change(8 * PAGE, 4 * PAGE, None)])
    below.reads.clear()
    read(export, 0, 16 * PAGE)
    first = VOLUMES.first_page(DISK)
    assert below.reads == [(first + 4, 4), (first + 12, 4)]


def test_a_failed_read_below_changes_nothing(tmp_path: Path) -> None:
    below = state()
    export = WritableExport(below, DISK, "", Scratch(str(tmp_path), PAGE, SIZE))
    below.error = InputOutputError("the device failed")
    with pytest.raises(InputOutputError):
        export.change([Change(100, 10, b"x" * 10)])
    below.error = None
    assert read(export, 0, SIZE) == below.content["disk"]


def test_volumes_share_the_room_of_one_scratch(tmp_path: Path) -> None:
    below, scratch = state(), Scratch(str(tmp_path), PAGE, PAGE)
    disk, other = (WritableExport(below, VOLUMES[name], "", scratch) for name in ("disk", "other"))
    disk.change([Change(0, PAGE, b"x" * PAGE)])
    with pytest.raises(NoSpaceError):
        other.change([Change(0, PAGE, b"y" * PAGE)])
    disk.change([Change(0, PAGE, None)])
    other.change([Change(0, PAGE, b"y" * PAGE)])
    assert read(other, 0, PAGE) == b"y" * PAGE and read(disk, 0, PAGE) == bytes(PAGE)


def test_clients_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each has its own bytes of every page; slots are given up and taken again meanwhile."""
    below = state()
    export = WritableExport(below, DISK, "", Scratch(str(tmp_path), PAGE, SIZE + PAGE))
    clients, width = 4, PAGE // 4
    failed: list[Any] = []
    begin = threading.Barrier(clients + 1)

    def write(number: int) -> None:
        begin.wait()
        for page in range(100):
            export.change([Change(page * PAGE + number * width, width, bytes([number + 1]) * width)])
            failed.extend([page] * (read(export, page * PAGE + number * width, width) != bytes([number + 1]) * width))

    def zero() -> None:
        begin.wait()
        for turn in range(200):
            at = (200 + turn % 7) * PAGE
            export.change([Change(at, PAGE, b"z" * PAGE), Change(at, PAGE, None)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(clients)]
    threads.append(threading.Thread(target=zero))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    expected = b"".join(bytes([number + 1]) * width for number in range(clients))
    assert read(export, 0, 100 * PAGE) == expected * 100
