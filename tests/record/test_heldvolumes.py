"""Volumes that changed outside are told from those that a crash left, and are not touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mirrortool import files, hostinfo
from mirrortool.errors import ChangedOutsideError, LockedError, MirrortoolError, UnusableVolumeError
from mirrortool.record import heldvolumes
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.mark import mark
from mirrortool.record.recorder import Recorder
from tests.conftest import FakeClock
from tests.fakes.descriptors import open_descriptors
from tests.fakes.disk import BLOCK, PowerCut, cut_at, faulty
from tests.fakes.journals import set_boot_id
from tests.fakes.recorders import based, check_everywhere, drop, kill_scan, quiet_recorder
from tests.fakes.volumes import (
    PAGE,
    Primary,
    adopt,
    loop_device,
    loop_mount,
    make_primary,
    pattern,
    read_bytes,
    unavailable,
)

HOUR = 3600


pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def primary(directory: str) -> Primary:
    """With a complete initial scan."""
    return based(make_primary(directory, {"a": pattern(1, 40 * PAGE + 9)}))


def crash_with_something_to_redo(primary: Primary) -> bytes:
    """Returns what the volume must have after it was redone."""
    recorder = Recorder(primary.journal_path, background=False)
    recorder.write("a", 3, b"never written to the volume", fua=True)
    expected = recorder.read("a", 0, recorder.volumes["a"].size)
    drop(recorder)
    return expected


def touch_at(primary: Primary, seconds_from_newest: float) -> None:
    """Write to the volume; its time says how long after the newest frame."""
    facts = os.stat(primary.paths["a"])
    os.utime(primary.paths["a"], ns=(facts.st_atime_ns, newest_ns(primary) + int(seconds_from_newest * 1e9)))


def newest_ns(primary: Primary) -> int:
    from mirrortool.journal.commits import newest_commits

    return newest_commits(primary.journal, 1)[0].time_ns


def everything(primary: Primary) -> dict[str, bytes]:
    """Each file of journal and volumes, but for locks and what was moved away."""
    found = {}
    for place, _, names in os.walk(primary.directory):
        for name in names:
            path = os.path.join(place, name)
            if name != "lock" and "/torn" not in place:
                found[path] = read_bytes(path)
    return found


def assert_refused(primary: Primary, why: str) -> None:
    """With exit code 21, and nothing written."""
    before = everything(primary)
    times = os.stat(primary.paths["a"]).st_mtime_ns
    with pytest.raises(ChangedOutsideError, match=why) as refused:
        Recorder(primary.journal_path, background=False)
    assert refused.value.exit_code == 21 and "--scan" in str(refused.value)
    assert everything(primary) == before
    assert os.stat(primary.paths["a"]).st_mtime_ns == times
    # Nothing is held any more.
    with primary.journal.lock(), files.open_file(primary.paths["a"], write=True) as file:
        file.lock(exclusive=True, what="the volume")


def test_after_a_clean_stop_a_write_is_seen_even_if_its_time_was_put_back(primary: Primary) -> None:
    primary.write("a", 0, b"outside")
    assert_refused(primary, "since the recorder stopped")


def test_the_refusal_says_how_many_frames_a_scan_would_give_up(primary: Primary) -> None:
    primary.write("a", 0, b"outside")
    with pytest.raises(ChangedOutsideError) as nothing_lost:
        Recorder(primary.journal_path, background=False)
    assert str(nothing_lost.value).endswith("record --scan accepts it as it is")
    with Recorder(primary.journal_path, background=False, take_over=True) as recorder:
        InitialScan(recorder).run()
    for frames, told in ((1, "1 frame of the journal"), (3, "3 frames of the journal")):
        recorder = Recorder(primary.journal_path, background=False)
        for number in range(frames):
            recorder.write("a", number, b"x", fua=True)
        drop(recorder)
        touch_at(primary, HOUR)
        with pytest.raises(ChangedOutsideError, match=told):
            Recorder(primary.journal_path, background=False)
        with Recorder(primary.journal_path, background=False, take_over=True) as recorder:
            InitialScan(recorder).run()


def test_after_a_clean_stop_an_untouched_volume_is_accepted(primary: Primary) -> None:
    for _ in range(3):
        with Recorder(primary.journal_path, background=False) as recorder:
            recorder.write("a", 0, b"inside")
    with Recorder(primary.journal_path, background=False) as recorder:
        assert recorder.redone == 0 and not recorder.incomplete


def forget_times(primary: Primary) -> None:
    """As where the crash came while the volumes were written."""
    os.truncate(primary.journal.seen_path, 0)


@pytest.mark.parametrize("noted", ["", "[]", "{", '{"changed_ns": {"a": 1e400}, "sectors": {}', '{"changed_ns": 5'])
def test_times_that_are_not_valid_are_as_none(primary: Primary, noted: str) -> None:
    boot = f'"boot_id": "{hostinfo.boot_id()}"'
    Path(primary.journal.seen_path).write_text(f"{noted}, {boot}}}" if noted.startswith('{"') else noted)
    with Recorder(primary.journal_path):
        pass


def test_after_a_crash_between_two_write_backs_any_write_is_seen(primary: Primary) -> None:
    """At once, and also where the time of the content is that of an older copy (cp -p, rsync -t)."""
    crash_with_something_to_redo(primary)
    touch_at(primary, -HOUR)
    assert_refused(primary, "since the recorder stopped")


def test_after_a_crash_within_a_write_back_a_later_write_is_seen(
    primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_with_something_to_redo(primary)
    forget_times(primary)
    monkeypatch.setattr(heldvolumes, "STALL_NS", -1_000_000_000)
    touch_at(primary, -HOUR)
    assert_refused(primary, "after the recorder had crashed")


def test_after_a_crash_what_the_recorder_may_have_written_is_not_called_a_change(primary: Primary) -> None:
    expected = crash_with_something_to_redo(primary)
    forget_times(primary)
    touch_at(primary, 9)
    with Recorder(primary.journal_path, background=False) as recorder:
        assert recorder.redone == 1
    check_everywhere(primary, {"a": expected})


@pytest.mark.parametrize("clean", [True, False])
def test_another_file_in_its_place_is_seen(primary: Primary, clean: bool) -> None:
    if not clean:
        crash_with_something_to_redo(primary)
    primary.replace("a", primary.contents()["a"])
    assert_refused(primary, "another file")


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("change", [-1, 1, PAGE])
def test_another_size_is_seen(primary: Primary, clean: bool, change: int) -> None:
    if not clean:
        crash_with_something_to_redo(primary)
    primary.resize("a", 40 * PAGE + 9 + change)
    assert_refused(primary, "it has ")


def test_a_volume_that_is_gone_is_named(primary: Primary) -> None:
    os.unlink(primary.paths["a"])
    with pytest.raises(UnusableVolumeError):
        Recorder(primary.journal_path, background=False)


def test_a_volume_may_change_until_something_is_recorded(directory: str) -> None:
    """`init`, then a copy into the volume, then `record --nbd`: nothing was promised of it before."""
    primary = make_primary(directory, {"a": 40 * PAGE})
    primary.write("a", 5, b"copied")
    os.utime(primary.paths["a"])
    with Recorder(primary.journal_path, background=False) as recorder:
        InitialScan(recorder).run()
    check_everywhere(primary, primary.contents())


def test_a_change_is_taken_over_and_the_volume_is_incomplete_until_a_scan(primary: Primary) -> None:
    crash_with_something_to_redo(primary)
    primary.write("a", 7 * PAGE, b"outside")
    touch_at(primary, HOUR)
    before = primary.contents()
    with quiet_recorder(primary, take_over=True) as recorder:
        assert recorder.incomplete == {"a"}
        assert recorder.redone == 0 and primary.contents() == before
        InitialScan(recorder).run()
        assert not recorder.incomplete
        recorder.close()
    check_everywhere(primary, before)


@pytest.mark.parametrize("write", [False, True])
def test_what_was_taken_over_stays_taken_over_after_a_crash(primary: Primary, write: bool) -> None:
    """The volume counts as it was then: nothing older is redone over it, and the next recorder scans it, too."""
    crash_with_something_to_redo(primary)
    primary.write("a", 0, b"outside the recorder")
    primary.write("a", 7 * PAGE, b"outside")
    touch_at(primary, HOUR)
    expected = primary.contents()["a"]
    with quiet_recorder(primary, take_over=True) as recorder:
        if write:
            recorder.write("a", 9 * PAGE, b"inside", fua=True)
            expected = recorder.read("a", 0, len(expected))
    with quiet_recorder(primary) as recorder:
        assert recorder.incomplete == {"a"}
        InitialScan(recorder).run()
        recorder.close()
    check_everywhere(primary, {"a": expected})


def test_a_scan_that_takes_over_and_dies_lets_nothing_older_be_redone(primary: Primary) -> None:
    crash_with_something_to_redo(primary)
    primary.write("a", 0, b"outside the recorder")
    primary.write("a", 30 * PAGE, b"outside")
    touch_at(primary, HOUR)
    expected = primary.contents()
    kill_scan(primary, take_over=True)
    with suppress(ChangedOutsideError), quiet_recorder(primary) as recorder:
        assert recorder.incomplete
    assert primary.contents() == expected
    primary.scan(take_over=True)
    with Recorder(primary.journal_path, background=False) as recorder:
        assert not recorder.incomplete
    check_everywhere(primary, expected)


@pytest.mark.parametrize("number", range(1, 20))
def test_a_crash_in_recovery_long_after_the_first_is_recovered_from(
    primary: Primary, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What recovery itself has written is no change from outside."""
    recorder = Recorder(primary.journal_path, background=False)
    for page in range(0, 40, 2):
        recorder.write("a", page * PAGE, b"%03d" % page)
    recorder.flush()
    expected = recorder.read("a", 0, recorder.volumes["a"].size)
    drop(recorder)
    path = primary.paths["a"]
    from mirrortool import clock

    later = newest_ns(primary) + HOUR * 10**9
    monkeypatch.setattr(clock, "now_ns", lambda: later)
    untouched = os.stat(path).st_mtime_ns
    with faulty(cut_at(number)), suppress(PowerCut):
        drop(Recorder(primary.journal_path, background=False))
    if os.stat(path).st_mtime_ns != untouched:
        os.utime(path, ns=(later, later))
    later += HOUR * 10**9
    with Recorder(primary.journal_path, background=False):
        pass
    check_everywhere(primary, {"a": expected})


def test_a_scan_after_a_crash_redoes_first(primary: Primary) -> None:
    expected = crash_with_something_to_redo(primary)
    primary.scan()
    check_everywhere(primary, {"a": expected})


def test_a_mark_after_a_crash_redoes_first(primary: Primary) -> None:
    expected = crash_with_something_to_redo(primary)
    mark(primary.journal_path, "after")
    check_everywhere(primary, {"a": expected})


def test_a_scan_after_a_crash_refuses_a_changed_volume_too(primary: Primary) -> None:
    crash_with_something_to_redo(primary)
    primary.write("a", 0, b"outside")
    touch_at(primary, HOUR)
    before = primary.contents()
    with pytest.raises(ChangedOutsideError):
        primary.scan()
    assert primary.contents() == before


def test_captured_frames_are_never_redone(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume had them; by the time that they are in the journal it may have newer bytes there."""
    primary = make_primary(directory, {"a": pattern(1, 40 * PAGE)})
    recorder = Recorder(primary.journal_path, background=False)
    monkeypatch.setattr(recorder, "complete", lambda _: None)
    InitialScan(recorder).run()
    recorder.write("a", 0, b"x", fua=True)
    drop(recorder)
    with open(primary.paths["a"], "r+b") as file:  # as what a detached recorder wrote, within the time allowed
        file.seek(9 * PAGE)
        file.write(b"newer")
    forget_times(primary)
    with quiet_recorder(primary) as recorder:
        assert recorder.redone == 1
        assert recorder.read("a", 9 * PAGE, 5) == b"newer"


def test_a_second_recorder_is_refused(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        for again in (lambda: Recorder(primary.journal_path), primary.scan):
            with pytest.raises(LockedError) as refused:
                again()
            assert refused.value.exit_code == 22
        recorder.write("a", 0, b"still running", fua=True)
        recorder.close()
    with quiet_recorder(primary):
        pass


def test_an_image_that_is_mounted_is_not_served(directory: str) -> None:
    with loop_mount(directory, 2 << 20):
        primary = adopt(directory, {"disk": f"{directory}/mounted-disk.backing"})
        with pytest.raises(LockedError, match="mounted or held through /dev/loop"):
            Recorder.open(primary.journal_path)


def test_one_volume_in_two_journals_is_refused(primary: Primary, directory: str) -> None:
    other = os.path.join(directory, "other")
    os.mkdir(other)
    second = adopt(other, primary.paths)
    with quiet_recorder(primary), pytest.raises(LockedError) as refused:
        Recorder(second.journal_path)
    assert refused.value.exit_code == 22
    with quiet_recorder(second), pytest.raises(LockedError):
        Recorder(primary.journal_path)


def test_qemu_is_locked_out_while_a_recorder_works(primary: Primary) -> None:
    if not shutil.which("qemu-io"):
        unavailable("needs qemu-io")
    command = ["qemu-io", "-f", "raw", "-c", "write -P 0xab 0 512", primary.paths["a"]]
    with quiet_recorder(primary):
        before = primary.contents()
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode and "lock" in done.stderr
        assert primary.contents() == before


def test_a_start_that_fails_gives_everything_back(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        with pytest.raises(LockedError):
            Recorder(primary.journal_path)
        recorder.close()
    primary.write("a", 0, b"outside")
    before = open_descriptors()
    with pytest.raises(MirrortoolError):
        Recorder(primary.journal_path, background=False)
    assert open_descriptors() == before


class OnDevice:
    """A primary on a block device, crashed with page 3 to be redone."""

    def __init__(self, directory: str, device: str) -> None:
        self.device = device
        self.primary = based(adopt(directory, {"a": device}))
        with quiet_recorder(self.primary) as recorder:
            recorder.write("a", 3 * PAGE, b"1" * PAGE, fua=True)
            recorder.write("a", 3 * PAGE, b"2" * PAGE)
            recorder.zero("a", 4 * PAGE, PAGE, fua=True)

    def put(self, page: int, data: bytes) -> None:
        with open(self.device, "r+b") as file:
            file.seek(page * PAGE)
            file.write(data)


@pytest.fixture
def on_device(directory: str) -> Iterator[OnDevice]:
    with loop_device(directory, 64 << 10) as device:
        with open(device, "r+b") as file:
            file.write(pattern(1, 64 << 10))
        yield OnDevice(directory, device)


def test_a_device_with_a_foreign_page_where_one_is_to_be_redone_is_refused(on_device: OnDevice) -> None:
    on_device.put(3, b"x" * PAGE)
    for _ in range(2):
        with pytest.raises(ChangedOutsideError, match="page 3"):
            Recorder(on_device.primary.journal_path, background=False)
    assert read_bytes(on_device.device)[3 * PAGE : 4 * PAGE] == b"x" * PAGE


@pytest.mark.parametrize("half_done", [b"1", b"2"])
def test_a_device_on_which_some_was_written_already_is_accepted(on_device: OnDevice, half_done: bytes) -> None:
    on_device.put(3, half_done * PAGE)
    with Recorder(on_device.primary.journal_path, background=False) as recorder:
        assert recorder.redone == 3
        assert recorder.read("a", 3 * PAGE, 2 * PAGE) == b"2" * PAGE + bytes(PAGE)
    check_everywhere(on_device.primary, {"a": read_bytes(on_device.device)})


def test_a_page_that_a_power_cut_tore_on_a_device_is_made_whole(on_device: OnDevice) -> None:
    set_boot_id(on_device.primary.journal, "before")
    on_device.put(3, b"2" * 100 + b"torn" * 103)
    with Recorder(on_device.primary.journal_path, background=False) as recorder:
        assert recorder.read("a", 3 * PAGE, PAGE) == b"2" * PAGE


def test_a_device_is_held_exclusively(on_device: OnDevice) -> None:
    with quiet_recorder(on_device.primary), pytest.raises(OSError):
        os.close(os.open(on_device.device, os.O_RDWR | os.O_EXCL))


def test_a_long_write_back_keeps_the_journals_time(
    primary: Primary, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume is never written much later than the newest frame says, however slow it is."""
    from mirrortool.record import writeback

    monkeypatch.setattr(writeback, "_SLICE_BYTES", BLOCK)
    fake_clock.ns = newest_ns(primary)
    with quiet_recorder(primary) as recorder:
        real, gaps = recorder.store.write, []

        def write(runs: Any) -> None:
            gaps.append(fake_clock.ns - recorder._journal.time_ns)
            assert recorder._journal.durable == recorder._journal.position
            fake_clock.advance(4)
            real(runs)

        monkeypatch.setattr(recorder.store, "write", write)
        for page in range(0, 20, 2):
            recorder.write("a", page * PAGE, b"x" * PAGE)
        fake_clock.advance(100)
        recorder.write_back()
    assert len(gaps) == 10 and max(gaps) < 6 * 10**9


@pytest.mark.parametrize("is_captured", [False, True])
def test_a_device_crashed_before_or_within_its_initial_scan_keeps_what_was_flushed(
    directory: str, is_captured: bool
) -> None:
    """The table knows nothing of the page, or a captured frame does: neither is a change from outside."""
    with loop_device(directory, 64 << 10) as device:
        with open(device, "r+b") as file:
            file.write(pattern(1, 64 << 10))
        primary = adopt(directory, {"a": device})
        with quiet_recorder(primary) as recorder:
            if is_captured:
                InitialScan(recorder).run()
                recorder.write("a", 9 * PAGE, b"another page", fua=True)
            recorder.write("a", PAGE, b"flushed", fua=True)
        with quiet_recorder(primary) as recorder:
            assert recorder.redone == 1 + is_captured
            assert recorder.read("a", PAGE, 7) == b"flushed"
            InitialScan(recorder).run()
            expected = recorder.read("a", 0, 64 << 10)
            recorder.close()
        check_everywhere(primary, {"a": expected})


def test_a_device_written_after_a_clean_stop_is_refused(directory: str) -> None:
    """The kernel counts what is written to it."""
    with loop_device(directory, 64 << 10) as device:
        primary = based(adopt(directory, {"a": device}))
        with open(device, "r+b") as file:
            file.write(b"somebody else")
            os.fsync(file.fileno())
        with pytest.raises(ChangedOutsideError, match="device was written"):
            Recorder(primary.journal_path, background=False)


def test_a_volume_truncated_while_it_is_recorded_is_an_error_and_no_zeros(primary: Primary) -> None:
    with quiet_recorder(primary) as recorder:
        os.truncate(primary.paths["a"], 5)
        with pytest.raises(MirrortoolError, match="ends before it should"):
            recorder.read("a", PAGE, 10)
        with pytest.raises(MirrortoolError, match="ends before it should"):
            recorder.write("a", PAGE + 1, b"a part of a page")
