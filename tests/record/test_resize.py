"""A volume that is resized at rest is in the journal with its new size, and mirrors follow; however that is stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mirrortool.errors import (
    ChangedOutsideError,
    CorruptJournalError,
    LockedError,
    MirrortoolError,
    NotComparableError,
    UnusableVolumeError,
    UsageError,
)
from mirrortool.journal.commits import newest_commits
from mirrortool.operation import CommitKind
from mirrortool.record import resize as resize_module
from mirrortool.record.recorder import Recorder
from mirrortool.record.resize import resize_volume
from mirrortool.verify import Verify
from tests.fakes.cuts import EACH_CALL, lose_everywhere
from tests.fakes.journals import memory_directory
from tests.fakes.loop import call
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import PAGE, Primary, adopt, loop_device, make_primary, pattern

SIZE = 5 * PAGE + 100


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        yield path


def made(place: Path) -> Primary:
    """Volumes a, whose end is inside a page, and b; recorded."""
    primary = make_primary(place, {"a": pattern(1, SIZE), "b": pattern(2, 2 * PAGE)})
    primary.scan()
    return primary


@pytest.fixture
def primary(place: Path) -> Primary:
    return made(place)


def resize(primary: Primary, size: int) -> resize_module.Resized:
    return resize_volume(primary.journal_path, "a", size, may_shrink=True)


def newest_kind(primary: Primary) -> CommitKind:
    return next(iter(newest_commits(primary.journal, 1))).kind


def check_mirror(primary: Primary, name: str = "mirror") -> None:
    """A replay ends with what the primary has, and verify with the primary's sums."""
    mirror = primary.mirror(name)
    assert {kept.name: Path(mirror.volume_path(kept)).read_bytes() for kept in mirror.kept} == primary.contents()
    with Verify(mirror.path, journal_path=primary.journal_path) as verify:
        assert verify.run().is_right


SIZES = [0, 1, PAGE - 1, 2 * PAGE, 2 * PAGE + 7, SIZE - 1, SIZE + 1, 6 * PAGE, 6 * PAGE + 1, 90 * PAGE + 3]


@pytest.mark.parametrize("size", SIZES)
def test_file_and_journal_have_the_new_size_and_mirrors_follow(primary: Primary, size: int) -> None:
    primary.mirror("followed")
    before = primary.contents()
    resized = resize(primary, size)
    assert (resized.before, resized.size, resized.is_device) == (SIZE, size, False)
    assert primary.contents() == {**before, "a": before["a"][:size].ljust(size, b"\0")}
    primary.check()
    assert primary.journal.current_volumes()["a"].size == size
    assert resized.commit
    assert next(iter(newest_commits(primary.journal, 1))).position == resized.commit
    assert newest_kind(primary) == CommitKind.SCAN
    assert primary.scan().statistics.pages_written == 0
    for name in ("followed", "new"):
        check_mirror(primary, name)


def test_what_was_cut_off_does_not_come_back(primary: Primary) -> None:
    resize(primary, PAGE + 7)
    resize(primary, SIZE)
    assert primary.contents()["a"] == pattern(1, SIZE)[: PAGE + 7].ljust(SIZE, b"\0")
    primary.check()
    check_mirror(primary)


def test_a_volume_that_has_the_size_stays_as_it_is(primary: Primary) -> None:
    before = primary.journal.clean_end
    assert resize(primary, SIZE).commit is None
    assert primary.journal.clean_end == before


def test_live_recording_goes_on_with_the_new_size(primary: Primary) -> None:
    with Recorder(primary.journal_path) as recorder:
        recorder.write("a", 3, b"x" * 300)
    resize(primary, 9 * PAGE)
    with Recorder(primary.journal_path) as recorder:
        assert recorder.volumes["a"].size == 9 * PAGE
        assert not recorder.incomplete
        recorder.write("a", 8 * PAGE, b"y" * PAGE)
    primary.check()
    check_mirror(primary)


def test_a_smaller_size_is_taken_only_if_that_is_wanted(primary: Primary) -> None:
    with pytest.raises(UsageError, match="would lose its last 100 B; give --shrink") as refused:
        resize_volume(primary.journal_path, "a", 5 * PAGE)
    assert refused.value.exit_code == 2
    assert primary.contents()["a"] == pattern(1, SIZE)


def test_what_cannot_be_resized_is_left_as_it_was(primary: Primary) -> None:
    with pytest.raises(UsageError, match="no volume c; its volumes: a, b"):
        resize_volume(primary.journal_path, "c", 5)
    with pytest.raises(UnusableVolumeError, match="into the addresses of the next one"):
        resize(primary, (1 << 48) + 1)
    with Recorder(primary.journal_path), pytest.raises(LockedError):
        resize(primary, 9 * PAGE)
    primary.check()
    primary.write("a", 0, b"changed")
    with pytest.raises(ChangedOutsideError, match="record --scan"):
        resize(primary, 9 * PAGE)
    assert os.path.getsize(primary.paths["a"]) == SIZE
    primary.scan()
    resize(primary, 9 * PAGE)


def test_a_journal_that_lacks_changes_makes_no_commit(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize_module, "load_noted", lambda _: type("Noted", (), {"segments": {1}}))
    with pytest.raises(NotComparableError, match="had no room"):
        resize(primary, 9 * PAGE)


def test_damaged_sums_are_found_before_anything_changes(primary: Primary) -> None:
    table = Path(primary.journal.sums_path, "a.sums")
    data = bytearray(table.read_bytes())
    data[5 * 8] ^= 1
    table.write_bytes(data)
    with pytest.raises(CorruptJournalError, match="table of sums is damaged"):
        resize(primary, 9 * PAGE)
    assert os.path.getsize(primary.paths["a"]) == SIZE
    resize(primary, 9 * PAGE)  # the next one makes the table anew
    check_mirror(primary)


def test_an_incomplete_volume_stays_incomplete(place: Path) -> None:
    primary = make_primary(place, {"a": pattern(1, SIZE)})
    Recorder(primary.journal_path).close()
    resize(primary, 9 * PAGE)
    assert newest_kind(primary) == CommitKind.INCOMPLETE
    with Recorder(primary.journal_path) as recorder:
        assert set(recorder.incomplete) == {"a"}


def test_a_device_must_have_the_size_and_what_it_has_there_is_journaled(place: Path) -> None:
    """Nothing on it changes: what is after the old end may be somebody's."""
    with loop_device(place, 20 * PAGE) as device:
        content = pattern(3, 64 * PAGE)
        Path(device).write_bytes(content[: 20 * PAGE])
        primary = adopt(place, {"a": device})
        primary.scan()
        (place / "disk.backing").write_bytes(content)
        call("losetup", "--set-capacity", device)
        with pytest.raises(UnusableVolumeError, match="make the device larger first"):
            resize(primary, 65 * PAGE)
        for size in (40 * PAGE + 5, 10 * PAGE + 1, 64 * PAGE):
            assert resize(primary, size).is_device
            assert volumes_at(primary.journal)["a"] == content[:size]
        assert Path(device).read_bytes() == content
        assert primary.scan().statistics.pages_written == 0


@EACH_CALL
@pytest.mark.parametrize("size", [2 * PAGE + 7, 9 * PAGE])
def test_a_power_cut_at_any_call_leaves_what_a_scan_journals(place: Path, size: int, step: int) -> None:
    """Or a live recorder, which refuses a volume of another size than the journal knows."""
    primary: list[Primary] = []

    def prepare() -> None:
        shutil.rmtree(place / "P", ignore_errors=True)
        (place / "P").mkdir()
        primary[:] = [made(place / "P")]

    def check(has_ended: bool) -> None:
        now = primary[0]
        if has_ended:
            assert now.journal.current_volumes()["a"].size == os.path.getsize(now.paths["a"]) == size
            now.check()
        kept = pattern(1, SIZE)[:size].ljust(size, b"\0")
        assert now.contents()["a"] in (pattern(1, SIZE), kept)
        with suppress(MirrortoolError), Recorder(now.journal_path, background=False) as recorder:
            if not recorder.incomplete:
                assert volumes_at(now.journal) == now.contents()
        now.scan(take_over=True)
        now.check()

    lose_everywhere(prepare, lambda: resize(primary[0], size), check, least=10, step=step)
