"""The volume at a path is the one that was recorded, or that is said; a legal change is only asked about."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import hostinfo
from mirrortool.errors import ChangedOutsideError
from mirrortool.files import Identity
from mirrortool.hostinfo import DiskIds
from mirrortool.journal.recordercheckpoint import VolumeRecord
from mirrortool.record.recorder import Recorder
from mirrortool.record.scan import Scan
from mirrortool.record.volumeidentity import find_other, was_reattached
from tests.fakes.journals import set_boot_id
from tests.fakes.recorders import based, check_everywhere, drop
from tests.fakes.volumes import adopt, loop_device, make_primary, pattern

MIB = 1 << 20
DISK = DiskIds("wwid:naa.5001", "", 7)


def device(number: int, disk_ids: DiskIds) -> VolumeRecord:
    return VolumeRecord(MIB, Identity(0, number, True), 0, 0, disk_ids)


@pytest.mark.parametrize(
    ("known", "now", "is_other"),
    [
        (device(1, DISK), device(1, DISK), False),
        (device(1, DISK), device(2, replace(DISK, diskseq=9)), False),  # the same disk by another name
        (device(1, DISK), device(1, replace(DISK, wwid="wwid:naa.5002")), True),  # another one by the same
        (device(1, DISK), device(1, DiskIds()), False),
        (device(1, DISK), device(2, DiskIds()), True),  # nothing is known but the number
        (device(1, replace(DISK, wwid="serial:A")), device(1, replace(DISK, wwid="serial:B")), True),
        (device(1, replace(DISK, wwid="serial:A")), device(2, replace(DISK, wwid="serial:A")), True),  # not unique
        (device(1, replace(DISK, wwid="serial:A")), device(1, DISK), False),  # of different kinds
        (device(1, replace(DISK, partuuid="a-1")), device(1, replace(DISK, partuuid="a-2")), True),
        (device(1, replace(DISK, partuuid="a-1")), device(2, replace(DISK, partuuid="a-1")), False),
        (device(1, replace(DISK, partuuid="number:1")), device(2, replace(DISK, partuuid="a-1")), True),
        (device(1, DISK), VolumeRecord(MIB, Identity(1, 1, False), 0, 0), True),
        (VolumeRecord(MIB, Identity(1, 5, False), 0, 0), VolumeRecord(MIB, Identity(2, 5, False), 0, 0), False),
    ],
)
def test_a_disk_is_known_by_what_identifies_it(known: VolumeRecord, now: VolumeRecord, is_other: bool) -> None:
    assert bool(find_other(known, now)) == is_other


def test_the_refusal_names_both_disks() -> None:
    told = find_other(device(1, DISK), device(1, replace(DISK, wwid="wwid:naa.5002", partuuid="b")))
    assert told == "it is another disk than the one recorded: wwid:naa.5002, partition b, not wwid:naa.5001"


def test_a_replug_is_seen_within_one_boot() -> None:
    assert was_reattached(device(1, DISK), device(1, replace(DISK, diskseq=8)))
    assert not was_reattached(device(1, DISK), device(1, DISK))
    assert not was_reattached(device(1, DISK), device(1, DiskIds()))


class Loop:
    """A loop device whose disk can be exchanged, and a journal that has all of it."""

    def __init__(self, directory: str, path: str) -> None:
        self.directory, self.path = directory, path
        self.backing = Path(directory, "disk.backing")
        with open(path, "r+b") as opened:
            opened.write(pattern(1, MIB))
        self.primary = adopt(directory, {"a": path}, 4096)

    def attach(self, path: Path) -> None:
        subprocess.run(["losetup", "--detach", self.path], check=True)
        subprocess.run(["losetup", self.path, path], check=True)

    def other_disk(self, content: bytes) -> Path:
        path = Path(self.directory, "other.backing")
        path.write_bytes(content.ljust(MIB, b"\0"))
        return path

    def content(self) -> bytes:
        return Path(self.path).read_bytes()


@pytest.fixture
def loop(directory: str) -> Iterator[Loop]:
    with loop_device(directory, MIB) as path:
        yield Loop(directory, path)


def write(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as opened:
        opened.seek(offset)
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


@pytest.mark.parametrize("content", [pattern(2, MIB), b"", pattern(1, MIB // 4) + pattern(3, MIB * 3 // 4)])
@pytest.mark.parametrize("first", ["live", "scan"])
def test_another_disk_by_the_same_name_is_not_written(loop: Loop, content: bytes, first: str) -> None:
    """As a reboot swaps sdb and sdc: clean stop, the same number, and nothing that identifies it."""
    if first == "live":
        based(loop.primary)
    else:
        loop.primary.scan()
    loop.attach(loop.other_disk(content))
    before, journal = loop.content(), loop.primary.journal.recorder_checkpoint()
    with pytest.raises(ChangedOutsideError, match="is not what was recorded") as refused:
        Recorder(loop.primary.journal_path, background=False)
    assert refused.value.exit_code == 21
    assert (loop.content(), loop.primary.journal.recorder_checkpoint()) == (before, journal)
    with pytest.raises(ChangedOutsideError, match="may be another disk"):
        loop.primary.scan()
    loop.primary.scan(take_over=True)
    loop.primary.check()


def test_a_disk_with_data_in_place_of_a_blank_one_is_not_written(directory: str) -> None:
    with loop_device(directory, MIB) as path:
        primary = based(adopt(directory, {"a": path}, 4096))
        write(path, 0, pattern(5, MIB))
        # While the same kernel runs it counts sectors; after a boot nothing but the bytes tell.
        set_boot_id(primary.journal, "another")
        os.truncate(primary.journal.seen_path, 0)
        with pytest.raises(ChangedOutsideError, match="is not what was recorded"):
            Recorder(primary.journal_path, background=False)
        primary.scan()  # a mkfs is a legal change for a scan, and nothing of what was there is gone
        primary.check()


def test_a_replug_alone_is_not_refused(loop: Loop) -> None:
    """Within one boot diskseq moves, and the kernel's count of sectors may begin anew."""
    based(loop.primary)
    seen = Path(loop.primary.journal.seen_path)
    before = loop.primary.journal.recorder_checkpoint().volumes["a"].disk_ids.diskseq
    loop.attach(loop.backing)
    disk_ids = hostinfo.disk_ids(Identity(0, os.stat(loop.path).st_rdev, True))
    if not disk_ids.diskseq:
        pytest.skip("this kernel does not number attachments")
    assert disk_ids.diskseq != before
    seen.write_bytes(seen.read_bytes().replace(b'"sectors": {"a": ', b'"sectors": {"a": 7'))
    with Recorder(loop.primary.journal_path, background=False) as recorder:
        assert recorder.read("a", 0, MIB) == pattern(1, MIB)
    loop.attach(loop.backing)
    loop.primary.scan()


@pytest.mark.parametrize("is_torn", [False, True])
def test_after_a_replug_in_flight_redo_mends_what_is_torn(loop: Loop, is_torn: bool) -> None:
    """Pages on their way may be old, new, or half of each, as after a power cut: samples consider that."""
    based(loop.primary)
    recorder = Recorder(loop.primary.journal_path, background=False)
    recorder.write("a", 0, pattern(9, 64 * 4096), fua=True)
    drop(recorder)
    with open(loop.path, "r+b") as opened:  # some of it arrived
        opened.write(pattern(9, 64 * 4096)[: 30 * 4096 + (1000 if is_torn else 0)])
    loop.attach(loop.backing)
    with Recorder(loop.primary.journal_path, background=False) as again:
        assert again.redone
    assert loop.content() == pattern(9, 64 * 4096) + pattern(1, MIB)[64 * 4096 :]


def test_redo_is_not_written_to_another_disk(loop: Loop) -> None:
    based(loop.primary)
    recorder = Recorder(loop.primary.journal_path, background=False)
    recorder.write("a", 0, b"in flight", fua=True)
    drop(recorder)
    loop.attach(loop.other_disk(pattern(2, MIB)))
    before = loop.content()
    for _ in range(2):
        with pytest.raises(ChangedOutsideError, match="does not write 1 frame"):
            Recorder(loop.primary.journal_path, background=False)
        with pytest.raises(ChangedOutsideError):
            loop.primary.scan()
    assert loop.content() == before


@contextmanager
def identified(patch: pytest.MonkeyPatch, disk_ids: DiskIds) -> Iterator[None]:
    """The kernel tells that of every device."""
    with patch.context() as patched:
        patched.setattr(hostinfo, "disk_ids", lambda identity: disk_ids if identity.is_device else hostinfo.NO_IDS)
        yield


@pytest.mark.parametrize("act", [Scan, lambda path: Recorder(path, background=False)])
def test_a_disk_with_the_same_bytes_is_told_by_its_marks(
    loop: Loop, act: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with identified(monkeypatch, DISK):
        based(loop.primary)
    with identified(monkeypatch, replace(DISK, wwid="wwid:naa.5002")):
        with pytest.raises(ChangedOutsideError, match=r"another disk than the one recorded: wwid:naa\.5002"):
            act(loop.primary.journal_path)
        loop.primary.scan(take_over=True)
    with identified(monkeypatch, replace(DISK, wwid="wwid:naa.5002", diskseq=99)):
        loop.primary.scan()


def test_a_snapshot_may_have_any_identity_and_content(loop: Loop, directory: str) -> None:
    loop.primary.scan()
    snapshot = f"{directory}/snapshot"
    Path(snapshot).write_bytes(pattern(4, MIB // 2))
    loop.primary.scan(sources={"a": snapshot})
    assert loop.primary.journal.recorder_checkpoint().volumes["a"].size == MIB // 2


@pytest.mark.parametrize("how", ["truncate", "truncate and extend", "zeros"])
def test_a_file_that_was_emptied_in_place_is_asked_about(directory: str, how: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, MIB)}, 4096)
    primary.scan()
    if how == "zeros":
        primary.write("a", 0, bytes(MIB))
    else:
        primary.resize("a", 0)
        primary.resize("a", MIB if "extend" in how else 0)
    with pytest.raises(ChangedOutsideError, match=r"was emptied.*record --scan"):
        primary.scan()
    primary.scan(take_over=True)
    primary.check()


def test_a_file_that_was_written_anew_is_not(directory: str) -> None:
    primary = make_primary(directory, {"a": pattern(1, MIB)}, 4096)
    primary.scan()
    primary.write("a", 0, pattern(2, MIB))
    primary.scan()
    primary.check()


def test_what_the_journal_lacks_is_no_sign_of_another_disk(directory: str) -> None:
    """An initial scan that is not complete, as after --scan --nbd was stopped, tells nothing of the volume."""
    primary = based(make_primary(directory, {"a": pattern(1, MIB)}, 4096))
    primary.write("a", 0, pattern(2, MIB))
    drop(Recorder(primary.journal_path, background=False, take_over=True))
    with Recorder(primary.journal_path, background=False) as recorder:
        assert recorder.incomplete
    based(primary)
    check_everywhere(primary, {"a": pattern(2, MIB)})


def test_marks_stay_in_the_recorders_checkpoint(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    with identified(monkeypatch, replace(DISK, partuuid="p-1")):
        loop.primary.scan()
    record = loop.primary.journal.recorder_checkpoint().volumes["a"]
    assert record.disk_ids == replace(DISK, partuuid="p-1")
