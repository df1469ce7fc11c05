"""Block devices as volumes and as mirrors, and volumes of awkward sizes."""

import os

import pytest

from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, mounted, require_loops, require_tools
from tests.fakes.volumes import loop_device
from tests.interop.tool import Site, assert_same, check_file_system

MIB = 1 << 20


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def devices(tmp_path):
    """A primary's device and a mirror's, which is larger."""
    require_loops()
    with loop_device(tmp_path, 48 * MIB, "primary") as primary, loop_device(tmp_path, 64 * MIB, "copy") as copy:
        yield primary, copy


def test_a_device_mirrored_to_a_device(site, devices):
    require_tools("cmp", "e2fsck")
    primary, copy = devices
    call("mke2fs", "-q", "-t", "ext4", primary)
    site.init(f"disk={primary}")
    site.bring_up("--volume", f"disk={copy}")
    assert_same(primary, copy, 48 * MIB)
    for number in range(3):
        with mounted(primary, site.path / "mnt") as where:
            (where / f"file-{number}").write_bytes(os.urandom(2 * MIB))
            if number:
                (where / f"file-{number - 1}").unlink()
        site.bring_up()
        assert_same(primary, copy, 48 * MIB)
        check_file_system(copy)
    with open(copy, "rb") as device:
        device.seek(48 * MIB)
        assert not any(device.read()), "something was written after the end of the volume"


def test_a_device_mirrored_to_a_file_and_a_file_to_a_device(site, devices):
    primary, copy = devices
    (site.path / "small.img").write_bytes(os.urandom(3 * MIB + 17))
    with open(primary, "r+b") as device:
        device.seek(5 * MIB)
        device.write(os.urandom(7 * MIB))
    site.init(f"disk={primary}", f"small={site.path / 'small.img'}")
    site.bring_up("--volume", f"small={copy}")
    assert_same(primary, site.mirror / "volumes" / "disk.img", 48 * MIB)
    assert_same(site.path / "small.img", copy, 3 * MIB + 17)
    with open(copy, "rb") as device:
        device.seek(3 * MIB + 17)
        assert not any(device.read()), "the last page was not cut"


def test_a_device_with_data_is_refused_then_taken_over_and_grown_into(site, devices):
    """What it held before never shows, not even where the volume grows later."""
    _, copy = devices
    with open(copy, "r+b") as device:
        device.write(b"precious" * (64 * MIB // 8))
    image = site.path / "disk.img"
    image.write_bytes(os.urandom(5 * MIB + 100))
    site.init(f"disk={image}")
    site.run("record", site.journal, "--quiet")
    site.run("replay", site.journal, site.mirror, "--volume", f"disk={copy}", "--quiet", code=20)
    with open(copy, "rb") as device:
        assert device.read() == b"precious" * (64 * MIB // 8)
    site.bring_up("--volume", f"disk={copy}", "--overwrite")
    with open(image, "r+b") as file:
        file.truncate(9 * MIB + 3)
    site.bring_up()
    assert_same(image, copy, 9 * MIB + 3)
    with open(image, "r+b") as file:
        file.truncate(3 * MIB + 1)
        file.truncate(12 * MIB)
    site.bring_up()
    assert_same(image, copy, 12 * MIB)


def test_a_mounted_device_is_refused(site, devices):
    _, copy = devices
    image = site.path / "disk.img"
    image.write_bytes(os.urandom(MIB))
    site.init(f"disk={image}")
    site.run("record", site.journal, "--quiet")
    call("mke2fs", "-q", "-t", "ext4", copy)
    with mounted(copy, site.path / "mnt"):
        site.run("replay", site.journal, site.mirror, "--volume", f"disk={copy}", "--overwrite", "--quiet", code=22)
    check_file_system(copy)


def test_a_device_that_is_too_small_is_refused(site, devices):
    primary, _ = devices
    image = site.path / "disk.img"
    image.write_bytes(os.urandom(100))
    os.truncate(image, 48 * MIB + 1)
    site.init(f"disk={image}")
    site.run("record", site.journal, "--quiet")
    site.run("replay", site.journal, site.mirror, "--volume", f"disk={primary}", "--quiet", code=20)


def test_the_primary_is_no_target(site, devices):
    primary, _ = devices
    site.init(f"disk={primary}")
    site.run("record", site.journal, "--quiet")
    site.run("replay", site.journal, site.mirror, "--volume", f"disk={primary}", "--overwrite", "--quiet", code=20)


@pytest.mark.parametrize("size", [0, 4095, 16 * MIB + 513])
def test_a_size_that_is_no_multiple_of_the_page(site, size):
    require_tools("cmp")
    image = site.path / "disk.img"
    image.write_bytes(os.urandom(size))
    site.init(f"disk={image}")
    copy = site.mirror / "volumes" / "disk.img"
    for new in (size, size + 1, size + 5000, max(0, size - 4097)):
        with open(image, "r+b") as file:
            file.truncate(new)
            file.seek(max(0, new - 3))
            file.write(b"end"[: min(3, new)])
        if new == 0 < size + 5000:  # nothing is left of the file: that is asked about
            site.run("record", site.journal, "--quiet", "--scan")
        site.bring_up()
        assert_same(image, copy)


def test_a_disk_that_took_anothers_name_is_not_recorded(site, devices):
    """As where a reboot swaps sdb and sdc."""
    require_tools("cmp", "qemu-io")
    device, _ = devices
    call("mke2fs", "-q", "-t", "ext4", device)
    site.init(f"disk={device}")
    with LiveRecorder(site.journal) as live:
        live.wait_for_base()
        call("qemu-io", "-f", "raw", "-c", "write -P 1 1M 1M", "-c", "flush", live.uri())
    site.follow()
    backing = call("losetup", "--noheadings", "--output", "BACK-FILE", device).strip()
    other = site.path / "other.img"
    call("truncate", "--size", 48 * MIB, other)
    call("mke2fs", "-q", "-t", "ext4", other)
    before = other.read_bytes()
    call("losetup", "--detach", device)
    call("losetup", device, other)
    try:
        site.run("record", site.journal, "--nbd", f"unix:{site.path}/s", code=21)
        site.run("record", site.journal, code=21)
        site.run("status", site.journal)
    finally:
        call("losetup", "--detach", device)
        call("losetup", device, backing)
    assert other.read_bytes() == before
    with LiveRecorder(site.journal) as live:  # the right one again: replugged, not changed
        call("qemu-io", "-f", "raw", "-c", "read -P 1 1M 1M", "-c", "write -P 2 3M 4k", "-c", "flush", live.uri())
    site.follow()
    assert_same(device, site.mirror / "volumes" / "disk.img", 48 * MIB)
