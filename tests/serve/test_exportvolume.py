"""An export is the volume, byte for byte and as sparse as it can be, or an error; no page of it is wrong."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrortool.errors import ChangedOutsideError, NoSpaceError
from mirrortool.files import File
from mirrortool.mirror.targetvolume import Primaries
from mirrortool.serve.exportfile import ExportStream, open_export_target
from mirrortool.serve.exportvolume import ExportCancelled, ExportProgress, ExportVolume
from mirrortool.serve.state import ShownState, open_state
from tests.fakes.journals import PAGE, Commit, Op, Write, Zero, make_journal, memory_directory, replay_all

PAGES = 40
SIZE = PAGES * PAGE - 100


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def make_mirror(place: Path, frames: list[list[Op]], size: int = SIZE) -> Path:
    replay_all(make_journal(place / "J", {"none": 0, "disk": size}, [*frames, [Commit()]]), place / "M")
    return place / "M"


def export(state: ShownState, path: Path, name: str = "disk") -> ExportProgress:
    target = open_export_target(str(path), state.volume(name), Primaries([]), overwrite=False)
    try:
        return ExportVolume(state, state.volume(name), target).run()
    finally:
        target.abandon()


def stream(state: ShownState, path: Path) -> bytes:
    with path.open("wb") as file:
        ExportVolume(state, state.volume("disk"), ExportStream(file.fileno(), state.volume("disk").size)).run()
    return path.read_bytes()


def page(letter: str, count: int = 1) -> bytes:
    return letter.encode() * PAGE * count


WRITES = st.builds(
    lambda first, count, letter: Write("disk", first, page(letter, min(count, PAGES - first))),
    st.integers(0, PAGES - 1), st.integers(1, 12), st.sampled_from("abc\0"),
)  # fmt: skip
ZEROS = st.builds(
    lambda first, count: Zero("disk", first, min(count, PAGES - first)), st.integers(0, PAGES - 1), st.integers(1, 12)
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.one_of(WRITES, ZEROS), min_size=1, max_size=3), max_size=6))
def test_an_export_is_what_the_operations_made(frames: list[list[Op]]) -> None:
    model = bytearray(PAGES * PAGE)
    for operation in (each for frame in frames for each in frame):
        if isinstance(operation, Write):
            model[operation.page * PAGE : operation.page * PAGE + len(operation.data)] = operation.data
        elif isinstance(operation, Zero):
            model[operation.page * PAGE : (operation.page + operation.count) * PAGE] = bytes(operation.count * PAGE)
    with memory_directory() as place, open_state(str(make_mirror(place, frames))) as state:
        done = export(state, place / "out")
        assert (place / "out").read_bytes() == model[:SIZE]
        assert stream(state, place / "stream") == model[:SIZE]
        written = sum(len(each) for at in range(0, SIZE, PAGE) if any(each := bytes(model[at : min(at + PAGE, SIZE)])))
        assert done == ExportProgress(SIZE, SIZE, written)


def test_pages_of_zeros_become_holes(place: Path) -> None:
    """Also those that the mirror has as data."""
    size = 4 << 20
    path = make_mirror(place, [[Write("disk", 0, random.Random(1).randbytes(1 << 20))]], size)
    with (path / "volumes/disk.img").open("r+b") as image:
        image.seek(2 << 20)
        image.write(bytes(1 << 20))
    with open_state(str(path)) as state:
        assert export(state, place / "out").written == 1 << 20
    assert os.stat(place / "out").st_blocks * 512 <= 1.05 * (1 << 20)
    assert os.stat(place / "out").st_size == size


def test_a_volume_of_no_bytes_is_a_file_of_none(place: Path) -> None:
    with open_state(str(make_mirror(place, [[Write("disk", 0, page("x"))]]))) as state:
        assert export(state, place / "out", "none") == ExportProgress(0, 0, 0)
    assert (place / "out").read_bytes() == b""


@pytest.mark.parametrize("volume_page", [0, 20, PAGES - 1])
def test_a_page_that_is_wrong_ends_it_and_no_file_is_left(place: Path, volume_page: int) -> None:
    path = make_mirror(place, [[Write("disk", 0, page("x", PAGES - 10))]])
    with (path / "volumes/disk.img").open("r+b") as image:
        image.seek(volume_page * PAGE)
        image.write(b"!")
    with (
        open_state(str(path)) as state,
        pytest.raises(ChangedOutsideError, match=f"page {volume_page} of volume disk"),
    ):
        export(state, place / "out")
    assert not [name for name in os.listdir(place) if name.startswith("out")]


def test_a_disk_that_fills_up_ends_it_and_no_file_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "out").write_bytes(b"old")
    with open_state(str(make_mirror(place, [[Write("disk", 0, page("x"))]]))) as state:
        target = open_export_target(str(place / "out"), state.volume("disk"), Primaries([]), overwrite=True)

        def full(*_: object) -> None:
            raise NoSpaceError("the disk is full")

        monkeypatch.setattr(File, "pwrite", full)
        with pytest.raises(NoSpaceError):
            ExportVolume(state, state.volume("disk"), target).run()
        target.abandon()
    assert [name for name in os.listdir(place) if name.startswith("out")] == ["out"]
    assert (place / "out").read_bytes() == b"old"


def test_it_can_be_stopped(place: Path) -> None:
    with open_state(str(make_mirror(place, [[Write("disk", 0, page("x"))]]))) as state:
        target = open_export_target(str(place / "out"), state.volume("disk"), Primaries([]), overwrite=False)
        running = ExportVolume(state, state.volume("disk"), target)
        running.cancel()
        with pytest.raises(ExportCancelled):
            running.run()
        target.abandon()
    assert not [name for name in os.listdir(place) if name.startswith("out")]
