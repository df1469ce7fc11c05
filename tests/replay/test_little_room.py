"""Where a store makes freed space usable with a checkpoint only, a replay makes one when space is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirrortool.errors import InputOutputError, NoSpaceError
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.replay import coalesce, delegator, session
from mirrortool.replay.session import Replay
from tests.fakes.journals import PAGE, Commit, Op, Resize, Write, Zero, make_journal, memory_directory, shrink_pieces
from tests.fakes.memorystore import MemoryDisk, MemoryStore, io_error
from tests.fakes.serial import volumes_at

ROOM = 10


@pytest.fixture(autouse=True)
def _small_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_pieces(monkeypatch)
    monkeypatch.setattr(coalesce, "INLINE_ZERO_BYTES", 3 * PAGE)
    monkeypatch.setattr(delegator, "CHECKPOINT_SECONDS", 1e9)  # only those that are needed


class Disk:
    """The storage of one mirror: a store in memory for each replay, in place of its images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, page_most: int = ROOM) -> None:
        self.memory = MemoryDisk(page_most=page_most)
        self.stores: list[MemoryStore] = []
        monkeypatch.setattr(session, "open_store", self._open)

    def _open(self, mirror: Mirror, *, write: bool) -> MemoryStore:
        assert write
        self.stores.append(MemoryStore(mirror.volumes, self.memory))
        return self.stores[-1]

    def contents(self, mirror: Path) -> dict[str, bytes]:
        """What the volumes hold."""
        volumes = Mirror(str(mirror)).volumes
        store = MemoryStore(volumes, self.memory)
        found = {}
        for volume in volumes:
            buffer = memoryview(bytearray(volumes.page_count(volume) * PAGE))
            if buffer:
                store.read_into(volumes.first_page(volume), [buffer])
            found[volume.name] = bytes(buffer[: volume.size])
        return found


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def pages(number: int, count: int) -> bytes:
    return b"".join(bytes([number + each + 1]) * PAGE for each in range(count))


def full_then_freed(zero: Sequence[Op]) -> list[list[Op]]:
    """All room is written; `zero` frees it; other pages are written: in frames of their own."""
    return [[Write("a", 0, pages(1, ROOM)), Commit()], [*zero, Commit()], [Write("a", 20, pages(50, ROOM)), Commit()]]


ZEROS: dict[str, list[Op]] = {
    "one that runs alone": [Zero("a", 0, ROOM)],
    "small ones": [Zero("a", page, 1) for page in range(ROOM)],
    "a volume made smaller": [Resize("a", 0), Resize("a", 40 * PAGE)],
}


@pytest.mark.parametrize("zero", ZEROS.values(), ids=ZEROS)
@pytest.mark.parametrize("window_bytes", [1, 16 << 20])
def test_what_was_freed_is_usable_after_one_checkpoint(
    tmp_path: Path, disk: Disk, zero: list[Op], window_bytes: int
) -> None:
    """In a window of its own, and in the middle of one."""
    journal = make_journal(tmp_path / "J", {"a": 40 * PAGE}, full_then_freed(zero))
    with Replay(journal.path, str(tmp_path / "M"), window_bytes=window_bytes) as replay:
        checkpoint = replay.run()
    assert checkpoint.is_consistent
    assert disk.contents(tmp_path / "M") == volumes_at(journal)
    assert disk.stores[0].calls.count("end") <= 3, "none but those that were needed, and the last"


def test_space_that_does_not_come_back_is_missing(tmp_path: Path, disk: Disk) -> None:
    frames = [[Write("a", 0, pages(1, ROOM)), Commit()], [Write("a", 20, pages(50, 1)), Commit()]]
    journal = make_journal(tmp_path / "J", {"a": 40 * PAGE}, frames)
    with Replay(journal.path, str(tmp_path / "M")) as replay, pytest.raises(NoSpaceError, match="at LSN 2"):
        replay.run()
    assert Mirror(str(tmp_path / "M")).checkpoint.is_consistent
    assert disk.contents(tmp_path / "M") == volumes_at(journal, 2)


def test_what_one_frame_frees_is_no_room_for_the_same_frame(tmp_path: Path, disk: Disk) -> None:
    """A checkpoint in the middle of a frame cannot be made. With more room the next replay finishes it."""
    frames = [
        [Write("a", 0, pages(1, ROOM)), Commit()],
        [Zero("a", 0, ROOM), Write("a", 20, pages(50, 2)), Commit()],
    ]
    journal = make_journal(tmp_path / "J", {"a": 40 * PAGE}, frames)
    with Replay(journal.path, str(tmp_path / "M")) as replay, pytest.raises(NoSpaceError, match="rolling forward"):
        replay.run()
    disk.memory.page_most += 2
    disk.memory.cut_power()
    with Replay(journal.path, str(tmp_path / "M")) as replay:
        assert replay.run().is_consistent
    assert disk.contents(tmp_path / "M") == volumes_at(journal)


def test_a_checkpoint_begins_before_its_sync_and_ends_when_it_is_durable(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a sync in the middle of a window is none."""
    monkeypatch.setattr(delegator, "CHECKPOINT_PAGES", 2)
    save = Mirror.save_checkpoint

    def saved(mirror: Mirror, checkpoint: object) -> None:
        save(mirror, checkpoint)  # type: ignore[arg-type]
        disk.stores[0].calls.append(f"saved {mirror.checkpoint.position.lsn}")

    monkeypatch.setattr(Mirror, "save_checkpoint", saved)
    frames: list[list[Op]] = [[Write("a", 0, pages(1, 3)), Commit()], [Resize("a", 2 * PAGE), Commit()]]
    journal = make_journal(tmp_path / "J", {"a": 40 * PAGE}, frames)
    with Replay(journal.path, str(tmp_path / "M")) as replay:
        replay.run()
    calls = [call for call in disk.stores[0].calls if call not in ("drop", "close")]
    assert calls == ["saved 0", "sync", "begin", "sync", "saved 4", "end"]


def test_a_checkpoint_that_fails_does_not_end(tmp_path: Path, disk: Disk) -> None:
    journal = make_journal(tmp_path / "J", {"a": 40 * PAGE}, [[Write("a", 0, pages(1, 3)), Commit()]])
    with Replay(journal.path, str(tmp_path / "M")) as replay:
        disk.stores[0].failing["sync"] = io_error()
        with pytest.raises(InputOutputError):
            replay.run()
    assert "begin" in disk.stores[0].calls
    assert "end" not in disk.stores[0].calls


_STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 6)), min_size=1, max_size=14)


def fitting(steps: list[tuple[bool, int, int]]) -> list[list[Op]]:
    """Frames that write or zero runs of pages, and never have more than ROOM pages at once; each ends with a commit."""
    held: set[int] = set()
    frames: list[list[Op]] = []
    for number, (is_write, page, count) in enumerate(steps):
        touched = set(range(page, page + count))
        fits = is_write and len(held | touched) <= ROOM
        held = held | touched if fits else held - touched
        frames.append([Write("a", page, pages(number, count)) if fits else Zero("a", page, count), Commit()])
    return frames


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STEPS, st.sampled_from([1, 3 * PAGE, 16 << 20]))
def test_any_history_that_fits_is_replayed_with_the_room_that_it_needs(
    steps: list[tuple[bool, int, int]], window_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, memory_directory() as path:
        disk = Disk(patch)
        journal: Journal = make_journal(path / "J", {"a": 40 * PAGE}, fitting(steps))
        with Replay(journal.path, str(path / "M"), window_bytes=window_bytes) as replay:
            assert replay.run().is_consistent
        assert disk.contents(path / "M") == volumes_at(journal)
