"""What the kernel says of devices is what they are, and what it does not say is no error."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from mirrortool import files, host
from tests.fakes.loop import call
from tests.fakes.volumes import loop_device, loop_mount, pattern


def test_the_boot_has_an_id_that_stays() -> None:
    assert uuid.UUID(host.boot_id())
    assert host.boot_id() == host.boot_id()


def test_sectors_written_are_counted(tmp_path: Path) -> None:
    with loop_device(tmp_path, 1 << 20) as device, files.open_file(device, write=True) as file:
        identity = file.facts().identity
        written = host.sectors_written(identity)
        assert written is not None
        file.pwrite(pattern(1, 4096), 0)
        file.fdatasync()
        assert host.sectors_written(identity) == written + 8


def test_nobody_counts_what_is_no_device() -> None:
    assert host.sectors_written(files.Identity(0, 0, True)) is None


def test_devices_below_a_path_reach_down_through_loop_devices(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 2 << 20) as mounted:
        below = host.devices_below(mounted)
        assert files.find_facts(f"{tmp_path}/mounted-disk.backing").identity in below
        device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if mounted in line)
        assert files.find_facts(device).identity in below
        assert host.devices_below(str(tmp_path)) <= below


def test_what_is_not_there_is_on_no_device(tmp_path: Path) -> None:
    assert host.devices_below(str(tmp_path / "nothing")) == set()


@pytest.mark.parametrize(
    ("path", "is_among"),
    [("/dev/sdx", True), ("/dev/mapper/x", True), ("/dev/shm/x", False), ("/device/x", False), ("/tmp/dev/x", False)],
)
def test_a_name_among_devices_is_no_place_for_a_file(path: str, is_among: bool) -> None:
    assert host.is_among_devices(path) == is_among


def test_a_link_into_the_devices_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev")
    assert host.is_among_devices(str(tmp_path / "link" / "sdx"))


def test_nobody_uses_a_file_or_a_loop_device_that_is_not_mounted(tmp_path: Path) -> None:
    with loop_device(tmp_path, 1 << 20) as device:
        assert host.user_of(f"{tmp_path}/disk.backing") is None
        assert host.user_of(device) is None
    assert host.user_of(str(tmp_path)) is None
    assert host.user_of(str(tmp_path / "nothing")) is None


def test_who_mounts_a_loop_device_uses_its_file_and_every_other_device_over_that(tmp_path: Path) -> None:
    with loop_mount(tmp_path, 2 << 20) as mounted:
        device = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if mounted in line)
        backing = f"{tmp_path}/mounted-disk.backing"
        assert host.user_of(backing) == f"it is mounted or held through {device}"
        second = call("losetup", "--find", "--show", backing).strip()
        try:
            assert host.user_of(second) == f"it is mounted or held through {device}"
            third = call("losetup", "--find", "--show", second).strip()
            try:
                assert host.user_of(third) == f"it is mounted or held through {device}"
            finally:
                call("losetup", "--detach", third)
        finally:
            call("losetup", "--detach", second)
        assert host.user_of(device) is None, "who opens it exclusively finds that out"


def test_swap_files_are_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swap = tmp_path / "swap file"
    swap.write_bytes(bytes(4096))
    listed = tmp_path / "swaps"
    listed.write_text("Filename Type Size Used Priority\n" + str(swap).replace(" ", "\\040") + " file 4 0 -2\n")
    monkeypatch.setattr(host, "_SWAPS", str(listed))
    assert host.user_of(str(swap)) == "the system swaps to it"
    assert host.user_of(str(listed)) is None
