"""The initial scan: a volume gets into the journal while clients change it, and a half never counts as the whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mirrortool.errors import InputOutputError, NoSpaceError, NotComparableError
from mirrortool.journal.commits import commits
from mirrortool.operation import CommitKind
from mirrortool.record import volumeside
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from tests.fakes.disk import faulty
from tests.fakes.journals import replay_all, set_boot_id
from tests.fakes.recorders import based, check_everywhere, drop, kill_scan, quiet_recorder
from tests.fakes.serial import volumes_at
from tests.fakes.volumes import PAGE, Primary, fast_directory, make_primary, pattern

PAGES = 40


pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def primary() -> Iterator[Primary]:
    with fast_directory() as path:
        yield make_primary(path, {"a": pattern(1, PAGES * PAGE), "b": pattern(2, 3 * PAGE + 5)})


def kinds(primary: Primary) -> list[CommitKind]:
    return [commit.kind for commit in commits(primary.journal)]


def at_piece(recorder: Recorder, number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something when the piece with this number, from 1, is watched and has not been read."""
    left, real = number, recorder.capture.watch

    def watch(page: int, count: int) -> None:
        nonlocal left
        real(page, count)
        left -= 1
        if left == 0:
            act()

    monkeypatch.setattr(recorder.capture, "watch", watch)


def test_until_it_ends_commits_say_that_they_are_incomplete(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        assert recorder.incomplete == {"a", "b"} == set(recorder.statistics().incomplete)
        recorder.write("a", 0, b"x", fua=True)
        with pytest.raises(NotComparableError, match="not wholly journaled"):
            recorder.commit("nightly")
        recorder.commit()
        assert set(kinds(primary)) == {CommitKind.INCOMPLETE}
        scan = InitialScan(recorder)
        scan.run()
        assert scan.progress() == (PAGES + 4, PAGES + 4)
        assert not recorder.incomplete
        assert kinds(primary)[-1] == CommitKind.SCAN
        recorder.commit("nightly")
        recorder.close()
    check_everywhere(primary, {**primary.contents()})


def test_a_mirror_of_an_incomplete_commit_is_not_compared(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        recorder.write("a", 0, b"x", fua=True)
        replay_all(primary.journal, f"{primary.directory}/mirror")
    command = [sys.executable, "-m", "mirrortool", "verify", f"{primary.directory}/mirror", "--cached"]
    done = subprocess.run([*command, "--journal", primary.journal_path], capture_output=True, text=True)
    assert done.returncode == NotComparableError.exit_code == 3, done
    assert "initial scan was not complete" in done.stderr


def test_one_volume_alone_is_not_complete(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is of all volumes."""
    with quiet_recorder(primary) as recorder:
        scan = InitialScan(recorder)
        real = recorder.complete

        def complete(name: str) -> None:
            real(name)
            scan.stop()

        monkeypatch.setattr(recorder, "complete", complete)
        scan.run()
        assert recorder.incomplete == {"b"}
        recorder.write("a", 0, b"x", fua=True)
        assert set(kinds(primary)) == {CommitKind.INCOMPLETE}


@pytest.mark.parametrize("write_back", [False, True])
def test_what_is_written_while_its_piece_is_read_is_neither_lost_nor_overwritten(
    primary: Primary, write_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_recorder(primary) as recorder:

        def act() -> None:
            recorder.write("a", 9 * PAGE, b"new" * PAGE)
            recorder.zero("a", 13 * PAGE, PAGE)
            if write_back:
                recorder.write_back()

        recorder.write("a", 8 * PAGE, b"before")
        at_piece(recorder, 2, act, monkeypatch)
        InitialScan(recorder).run()
        expected = bytearray(pattern(1, PAGES * PAGE))
        expected[8 * PAGE : 8 * PAGE + 6] = b"before"
        expected[9 * PAGE : 12 * PAGE] = b"new" * PAGE
        expected[13 * PAGE : 14 * PAGE] = bytes(PAGE)
        recorder.close()
    check_everywhere(primary, {"a": bytes(expected), "b": pattern(2, 3 * PAGE + 5)})


def test_what_is_written_after_its_piece_was_read_is_not_overwritten(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the scan waits for room, which gives writers the lock."""
    with quiet_recorder(primary) as recorder:
        real = recorder._volumes.wait_for_room
        done = []

        def wait_for_room() -> None:
            if not done:
                done.append(True)
                recorder._journal.lock.release()  # as waiting does
                try:
                    recorder.write("a", 2 * PAGE, b"N" * PAGE)
                    recorder.write_back()
                finally:
                    recorder._journal.lock.acquire()
            real()

        monkeypatch.setattr(recorder._volumes, "wait_for_room", wait_for_room)
        InitialScan(recorder).run()
        assert done
        recorder.close()
    expected = bytearray(pattern(1, PAGES * PAGE))
    expected[2 * PAGE : 3 * PAGE] = b"N" * PAGE
    check_everywhere(primary, {"a": bytes(expected), "b": pattern(2, 3 * PAGE + 5)})


def test_a_scan_that_was_stopped_is_resumed_by_the_next_recorder(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_recorder(primary) as recorder:
        scan = InitialScan(recorder)
        at_piece(recorder, 3, scan.stop, monkeypatch)
        scan.run()
        recorder.close()
    with quiet_recorder(primary) as recorder:
        assert recorder.incomplete
        before = recorder.statistics().bytes_journaled
        InitialScan(recorder).run()
        assert 0 < recorder.statistics().bytes_journaled - before < (PAGES - 16) * PAGE
        recorder.close()
    check_everywhere(primary, primary.contents())


def test_a_checkpoint_that_began_before_the_end_does_not_say_that_it_is_complete(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut removes the last pieces from the journal, and nothing looks for them again."""
    with faulty(lambda _: None) as system:
        recorder = Recorder(primary.journal_path, background=False)
        real, done = volumeside.write_pages, []

        def write_pages(*arguments: Any) -> None:
            if not done:  # the checkpoint's position is fixed; now the scan ends
                done.append(True)
                with monkeypatch.context() as patch:
                    patch.setattr(recorder, "write_back", lambda **_: None)
                    InitialScan(recorder).run()
            real(*arguments)

        monkeypatch.setattr(volumeside, "write_pages", write_pages)
        recorder.write("a", 0, b"x")
        recorder.write_back(checkpoint=True)
        system.disk.is_off = True
        drop(recorder)
        system.disk.lose_all()
    set_boot_id(primary.journal, "another")
    with quiet_recorder(primary) as recorder:
        assert recorder.incomplete == {"a", "b"}


def test_pages_that_are_not_durable_on_the_volume_are_not_journaled(primary: Primary) -> None:
    """Captured frames are never redone: what a power cut removes from the volume, the journal must not have."""
    with faulty(lambda _: None) as system:
        with system.disk.written_by_others(primary.paths["a"]), open(primary.paths["a"], "r+b") as file:
            file.write(b"late")  # before the recorder, and nobody synced it
        recorder = Recorder(primary.journal_path, background=False)
        InitialScan(recorder).run()
        recorder.flush()
        lost = primary.paths["a"] in system.disk.dirty()
        drop(recorder)
    assert not lost


def test_without_room_it_waits_and_goes_on(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet_recorder(primary) as recorder:
        real, failures = recorder.capture.capture_watched, []

        def capture_watched(page: int, data: bytes, packed: bytes) -> None:
            if len(failures) < 2:
                failures.append(page)
                raise NoSpaceError("full")
            real(page, data, packed)

        monkeypatch.setattr(recorder.capture, "capture_watched", capture_watched)
        scan = InitialScan(recorder)
        monkeypatch.setattr(scan._stopping, "wait", lambda _: None)
        scan.run()
        assert len(failures) == 2 and not recorder.incomplete
        recorder.close()
    check_everywhere(primary, primary.contents())


def test_a_piece_that_cannot_be_read_is_read_again(primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client writes between two attempts is the client's, and the second attempt's the volume's."""
    with quiet_recorder(primary) as recorder:
        real, failed = recorder.store.read_into, []
        scan = InitialScan(recorder)

        def read_into(page: int, buffers: Any) -> None:
            if page == 16 and len(failed) < 3:
                failed.append(page)
                raise InputOutputError("no", where=primary.paths["a"])
            real(page, buffers)

        def wait(_seconds: float) -> None:
            if not scan.problem:  # it lets clients go first
                return
            assert recorder.incomplete == {"a", "b"} and scan.progress().pages_done == 16
            recorder.write("a", (16 + len(failed)) * PAGE, b"N" * PAGE)
            if len(failed) == 2:
                recorder.write_back()

        monkeypatch.setattr(recorder.store, "read_into", read_into)
        monkeypatch.setattr(scan._stopping, "wait", wait)
        scan.run()
        assert len(failed) == 3 and scan.problem is None
        assert not recorder.incomplete and scan.progress().pages_done == scan.progress().pages_total
        recorder.close()
    expected = bytearray(pattern(1, PAGES * PAGE))
    expected[17 * PAGE : 20 * PAGE] = b"N" * 3 * PAGE
    check_everywhere(primary, {"a": bytes(expected), "b": pattern(2, 3 * PAGE + 5)})


def test_without_room_for_the_commit_the_base_is_complete_anyhow(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet_recorder(primary) as recorder:
        real = recorder._journal._writer.append

        def append(batch: Any, **options: Any) -> Any:
            if batch.is_commit:
                raise NoSpaceError("full")
            return real(batch, **options)

        with monkeypatch.context() as patch:
            patch.setattr(recorder._journal._writer, "append", append)
            InitialScan(recorder).run()
        assert not recorder.incomplete
        recorder.close()
    check_everywhere(primary, primary.contents())


def test_a_killed_scan_of_a_changed_volume_leaves_it_incomplete(primary: Primary) -> None:
    """`record --scan` journals some of what changed outside, and dies; that must not count as all of it."""
    based(primary)
    primary.write("a", 0, b"outside")
    primary.write("a", 30 * PAGE, b"outside")
    kill_scan(primary)
    assert volumes_at(primary.journal) != primary.contents()
    with Recorder(primary.journal_path, background=False) as recorder:
        assert recorder.incomplete
        InitialScan(recorder).run()
    check_everywhere(primary, primary.contents())


def test_an_empty_volume_is_complete_at_once() -> None:
    with fast_directory() as path:
        primary = make_primary(path, {"none": 0, "sparse": 100 * PAGE})
        with Recorder(primary.journal_path, background=False) as recorder:
            InitialScan(recorder).run()
            assert recorder.read("none", 0, 0) == b""
            assert list(recorder.extents("none", 0, 0)) == []
        check_everywhere(primary, {"none": b"", "sparse": bytes(100 * PAGE)})
