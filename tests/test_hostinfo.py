"""What the kernel says of devices is what they are, and what it does not say is no error."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from mirrortool import files, hostinfo
from mirrortool.errors import LockedError
from mirrortool.files import Identity
from tests.fakes.loop import call
from tests.fakes.volumes import loop_device, loop_mount, pattern


def test_the_boot_has_an_id_that_stays() -> None:
    assert uuid.UUID(hostinfo.boot_id())
    assert hostinfo.boot_id() == hostinfo.boot_id()


def test_sectors_written_are_counted(tmp_path: Path) -> None:
    with loop_device(tmp_path, 1 << 20) as device, files.open_file(device, write=True) as file:
        identity = file.facts().identity
        written = hostinfo.sectors_written(identity)
        assert written is not None
        file.pwrite(pattern(1, 4096), 0)
        file.fdatasync()
        assert hostinfo.sectors_written(identity) == written + 8


def test_nobody_counts_what_is_no_device() -> None:
    assert hostinfo.sectors_written(files.Identity(0, 0, True)) is None


def test_devices_below_a_path_reach_down_through_loop_devices(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 2 << 20) as mounted:
        below = hostinfo.devices_below(mounted)
        assert files.find_facts(f"{tmp_path}/mounted-disk.backing").identity in below
        device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if mounted in line)
        assert files.find_facts(device).identity in below
        assert hostinfo.devices_below(str(tmp_path)) <= below


def test_what_is_not_there_is_on_no_device(tmp_path: Path) -> None:
    assert hostinfo.devices_below(str(tmp_path / "nothing")) == set()


@pytest.mark.parametrize(
    ("path", "is_among"),
    [("/dev/sdx", True), ("/dev/mapper/x", True), ("/dev/shm/x", False), ("/device/x", False), ("/tmp/dev/x", False)],
)
def test_a_name_among_devices_is_no_place_for_a_file(path: str, is_among: bool) -> None:
    assert hostinfo.is_among_devices(path) == is_among


def test_a_link_into_the_devices_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev")
    assert hostinfo.is_among_devices(str(tmp_path / "link" / "sdx"))


def test_nobody_uses_a_file_or_a_loop_device_that_is_not_mounted(tmp_path: Path) -> None:
    with loop_device(tmp_path, 1 << 20) as device:
        assert hostinfo.user_of(f"{tmp_path}/disk.backing") is None
        assert hostinfo.user_of(device) is None
    assert hostinfo.user_of(str(tmp_path)) is None
    assert hostinfo.user_of(str(tmp_path / "nothing")) is None


def test_who_mounts_a_loop_device_uses_its_file_and_every_other_device_over_that(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 2 << 20) as mounted:
        device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if mounted in line)
        backing = f"{tmp_path}/mounted-disk.backing"
        assert hostinfo.user_of(backing) == f"it is mounted or held through {device}"
        second = call("losetup", "--find", "--show", backing).strip()
        try:
            assert hostinfo.user_of(second) == f"it is mounted or held through {device}"
            third = call("losetup", "--find", "--show", second).strip()
            try:
                assert hostinfo.user_of(third) == f"it is mounted or held through {device}"
            finally:
                call("losetup", "--detach", third)
        finally:
            call("losetup", "--detach", second)
        assert hostinfo.user_of(device) is None, "opening it exclusively finds that out"


def test_swap_files_are_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swap = tmp_path / "swap file"
    swap.write_bytes(bytes(4096))
    listed = tmp_path / "swaps"
    listed.write_text("Filename Type Size Used Priority\n" + str(swap).replace(" ", "\\040") + " file 4 0 -2\n")
    monkeypatch.setattr(hostinfo, "_SWAPS", str(listed))
    assert hostinfo.user_of(str(swap)) == "the system swaps to it"
    assert hostinfo.user_of(str(listed)) is None
    with pytest.raises(LockedError, match="is in use: the system swaps to it; swapoff it first"):
        hostinfo.refuse_used(str(swap))


def test_what_others_keep_where_this_user_may_not_look_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, endless, listed = (tmp_path / name for name in ("disk.img", "endless", "swaps"))
    image.write_bytes(bytes(4096))
    endless.symlink_to(endless)  # looking there fails for root, too
    listed.write_text(f"Filename Type Size Used Priority\n{endless} file 4 0 -2\n")
    monkeypatch.setattr(hostinfo, "_SWAPS", str(listed))
    monkeypatch.setattr(hostinfo, "list_directory", lambda path: ["loop0"] if path == "/sys/block" else [])
    monkeypatch.setattr(hostinfo, "_read_number", lambda _: os.makedev(7, 0))
    monkeypatch.setattr(hostinfo, "_backing_file", lambda _: str(endless))
    assert hostinfo.user_of(str(image)) is None
    assert hostinfo.devices_below(str(image)) == {Identity(0, os.stat(image).st_dev, True)}
    assert hostinfo.loop_place(Identity(0, os.makedev(7, 0), True)) == ()


def disk(sysfs: Path, name: str, **values: str) -> None:
    """A disk or partition as sysfs shows it."""
    for where, value in values.items():
        path = sysfs / name / where.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.encode() + b"\n")


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hostinfo, "_sysfs", lambda number: str(tmp_path / "dev" / str(number)))
    monkeypatch.setattr(hostinfo, "_PARTUUIDS", str(tmp_path / "by-partuuid"))
    (tmp_path / "dev").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("values", "wwid"),
    [
        ({"wwid": "eui.0025"}, "wwid:eui.0025"),
        ({"device__wwid": "naa.5001", "serial": "x"}, "wwid:naa.5001"),
        ({"dm__uuid": "LVM-abc"}, "dm:LVM-abc"),
        ({"dm__uuid": "", "serial": "S1"}, "serial:S1"),
        ({"md__uuid": "1-2"}, "md:1-2"),
        ({"device__cid": "x"}, ""),
        ({}, ""),
    ],
)
def test_a_disk_is_identified_by_the_best_name_that_it_has(sysfs: Path, values: dict[str, str], wwid: str) -> None:
    disk(sysfs, "dev/5", diskseq="42", **values)
    assert hostinfo.disk_ids(files.Identity(0, 5, True)) == hostinfo.DiskIds(wwid, "", 42)


def test_a_partition_is_identified_by_its_disk_and_its_own_mark(sysfs: Path) -> None:
    disk(sysfs, "sda", wwid="naa.5001", diskseq="3")
    disk(sysfs, "sda/sda1", partition="1", uevent="DEVTYPE=partition\nPARTUUID=6f-01")
    disk(sysfs, "sda/sda2", partition="2", uevent="DEVTYPE=partition")
    for number, name in ((1, "sda1"), (2, "sda2")):
        (sysfs / "dev" / str(number)).symlink_to(sysfs / "sda" / name)
    assert hostinfo.disk_ids(files.Identity(0, 1, True)) == hostinfo.DiskIds("wwid:naa.5001", "6f-01", 3)
    assert hostinfo.disk_ids(files.Identity(0, 2, True)) == hostinfo.DiskIds("wwid:naa.5001", "number:2", 3)


def test_udev_tells_of_a_partition_where_the_kernel_does_not(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(sysfs, "sda/sda1", partition="1")
    (sysfs / "dev" / "1").symlink_to(sysfs / "sda" / "sda1")
    (sysfs / "by-partuuid").mkdir()
    for name in ("aa-1", "bb-2"):
        (sysfs / "by-partuuid" / name).touch()
    real = hostinfo.find_facts

    def find_facts(path: str) -> object:
        found = real(path)
        return found and replace(found, identity=files.Identity(0, 1 if path.endswith("bb-2") else 9, True))

    monkeypatch.setattr(hostinfo, "find_facts", find_facts)
    assert hostinfo.disk_ids(files.Identity(0, 1, True)).partuuid == "bb-2"


def test_what_is_not_a_device_has_no_marks_and_an_attachment_has_a_number(tmp_path: Path) -> None:
    assert hostinfo.disk_ids(files.Identity(1, 2, False)) == hostinfo.NO_IDS
    assert hostinfo.disk_ids(files.Identity(0, 0, True)) == hostinfo.NO_IDS
    with loop_device(tmp_path, 1 << 20) as device:
        facts = files.find_facts(device)
        assert facts
        ids = hostinfo.disk_ids(facts.identity)
        assert (ids.wwid, ids.partuuid) == ("", "")
        told = Path(f"/sys/block/{Path(device).name}/diskseq")
        assert ids.diskseq == (int(told.read_text()) if told.exists() else 0)


def test_a_file_system_is_named(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 2 << 20) as mounted:
        facts = files.find_facts(mounted)
        assert facts
        assert hostinfo.file_system_of(facts.identity) == "ext4"
    assert hostinfo.file_system_of(files.Identity(0xFFFF, 1, False)) == ""
