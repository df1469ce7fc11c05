"""Real ext4 images, changed as their users change them: the mirror is the same, sound, and as sparse, each time."""

import os
import random

import pytest

from mirrortool.mirror.directory import Mirror
from tests.fakes.loop import call, mounted, require_loops, require_tools
from tests.interop.tool import Site, assert_as_sparse, assert_same, check_file_system

MIB = 1 << 20


def plant(path, count, chance, largest=60_000):
    """Files as in a home directory: many small, few large, some empty, some sparse."""
    for number in range(count):
        folder = path / f"d{number % 23}"
        folder.mkdir(exist_ok=True, parents=True)
        size = int(largest * chance.random() ** 4)
        (folder / f"file-{number}").write_bytes(chance.randbytes(size))
    with open(path / "sparse", "wb") as file:
        file.truncate(5 * MIB)
        file.seek(3 * MIB)
        file.write(b"in the middle")


@pytest.fixture
def site(tmp_path):
    require_tools("mke2fs", "debugfs", "e2fsck", "cmp")
    return Site(tmp_path)


@pytest.fixture
def image(site):
    """An ext4 of 2000 files, 96 MiB, made without mounting anything."""
    plant(site.path / "tree", 2000, random.Random(1))
    path = site.path / "disk.img"
    call("mke2fs", "-q", "-t", "ext4", "-d", site.path / "tree", path, "96M")
    site.init(f"disk={path}")
    return path


def mirror_image(site):
    (volume,) = Mirror(str(site.mirror)).kept
    return site.mirror / volume.place.path


def check(site, image, *options):
    report = site.bring_up(*options)
    copy = mirror_image(site)
    assert_same(image, copy)
    check_file_system(copy)
    assert_as_sparse(image, copy)
    return report


def debugfs(image, *commands):
    script = image.with_suffix(".debugfs")
    script.write_text("\n".join([*commands, "quit", ""]))
    call("debugfs", "-w", "-f", script, image)


def test_an_image_changed_by_debugfs(site, image):
    first = check(site, image)
    source = site.path / "new"
    source.write_bytes(os.urandom(3 * MIB))
    debugfs(image, "mkdir /fresh", "cd /fresh", f"write {source} new", f"write {source} again")
    second = check(site, image, "--groups", 4, "--tasks", 2, "--ranges", "equal")
    assert second["start_lsn"] == first["applied_lsn"]
    debugfs(image, *(f"rm /d{number % 23}/file-{number}" for number in range(0, 2000, 3)), "rm /fresh/new")
    third = check(site, image, "--unit", "op")
    assert 0 < third["payload_bytes"] < first["payload_bytes"]
    assert check(site, image)["payload_bytes"] == 0, "nothing changed"


def test_an_image_changed_through_a_mount_grown_and_shrunk(site, image):
    require_loops()
    require_tools("resize2fs")
    check(site, image)
    with mounted(image, site.path / "mnt") as where:
        plant(where / "more", 300, random.Random(2), largest=200_000)
        for number in range(0, 2000, 7):
            os.unlink(where / f"d{number % 23}" / f"file-{number}")
        with open(where / "sparse", "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * MIB)
    check(site, image)
    with open(image, "r+b") as file:
        file.truncate(160 * MIB)
    call("e2fsck", "-f", "-y", image)
    call("resize2fs", image)
    check(site, image, "--ranges", "space", "--groups", 3)
    with mounted(image, site.path / "mnt", "discard") as where:
        (where / "large").write_bytes(os.urandom(40 * MIB))
    check(site, image)
    with mounted(image, site.path / "mnt", "discard") as where:
        (where / "large").unlink()
        call("fstrim", where, check=False)
    report = check(site, image)
    assert report["payload_bytes"] < 20 * MIB, "what is given back is not sent"
    call("e2fsck", "-f", "-y", image)
    call("resize2fs", image, "90M")
    with open(image, "r+b") as file:
        file.truncate(90 * MIB)
    check(site, image)


def test_a_mirror_of_the_first_commit_and_one_of_the_last(site, image):
    """Any commit can be had, after all of them were recorded."""
    site.run("record", site.journal, "--quiet")
    site.run("mark", site.journal, "before")
    before = site.path / "before.img"
    call("cp", "--sparse=always", image, before)
    debugfs(image, "rm /d1/file-1", "mkdir /late")
    site.run("record", site.journal, "--quiet")
    site.run("replay", site.journal, site.mirror, "--until", "before", "--quiet")
    assert_same(before, mirror_image(site))
    site.run("replay", site.journal, site.mirror, "--until", "before", "--quiet")
    check(site, image)
    site.run("replay", site.journal, site.mirror, "--until", "before", "--quiet", code=23)
    assert_same(image, mirror_image(site))


def test_a_mirror_mounted_by_mistake_is_noticed(site, image):
    """Mounting it read-write changes its superblock; replay refuses to write over changes that are not its own."""
    require_loops()
    check(site, image)
    with mounted(mirror_image(site), site.path / "mnt"):
        pass
    debugfs(image, "mkdir /x")
    site.run("record", site.journal, "--quiet")
    site.run("replay", site.journal, site.mirror, "--quiet", code=21)
    site.run("verify", site.mirror, "--quiet", code=1)


@pytest.mark.soak
def test_an_image_ten_times_as_large(site):
    """2 GiB, 200 MiB of it data."""
    chance = random.Random(3)
    for number in range(40):
        (site.path / "tree").mkdir(exist_ok=True)
        (site.path / "tree" / f"large-{number}").write_bytes(chance.randbytes(5 * MIB))
    image = site.path / "disk.img"
    call("mke2fs", "-q", "-t", "ext4", "-d", site.path / "tree", image, "2G")
    site.init(f"disk={image}")
    check(site, image)
    debugfs(image, "rm /large-3", "mkdir /x")
    report = check(site, image)
    assert report["payload_bytes"] < 10 * MIB
