"""ext4 and XFS of the kernel's on a live recorder, through nbdfuse and a loop device: their mirror is sound."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, mounted, require, require_loops, require_tools
from tests.interop.blockdevice import block_device
from tests.interop.tool import Site, check_file_system

MIB = 1 << 20
KINDS = {"ext4": ("mkfs.ext4", "-q", "-E", "nodiscard"), "xfs": ("mkfs.xfs", "-q", "-K")}
SIZE = 320 * MIB
"""XFS has no smaller ones than 300 MiB."""


def plant(folder: Path, count: int, chance: random.Random) -> dict[Path, bytes]:
    """Files of many sizes; what is in them."""
    planted = {}
    for number in range(count):
        path = folder / f"d{number % 7}" / f"file-{number}"
        path.parent.mkdir(exist_ok=True, parents=True)
        planted[path] = chance.randbytes(int(150_000 * chance.random() ** 3))
        path.write_bytes(planted[path])
    return planted


def change(folder: Path, planted: dict[Path, bytes], chance: random.Random) -> None:
    """Delete, overwrite, extend, cut, rename, make holes."""
    for path in list(planted):
        kind = chance.random()
        if kind < 0.3:
            path.unlink()
            del planted[path]
        elif kind < 0.5:
            planted[path] += chance.randbytes(9000)
            path.write_bytes(planted[path])
        elif kind < 0.6:
            planted[path] = planted[path][:5000]
            os.truncate(path, len(planted[path]))
        elif kind < 0.7:
            new = path.with_suffix(".new")
            path.rename(new)
            planted[new] = planted.pop(path)
    with (folder / "sparse").open("wb") as file:
        file.truncate(20 * MIB)
        file.seek(7 * MIB)
        file.write(b"in the middle")
        os.fsync(file.fileno())


def check(kind: str, image: Path) -> None:
    if kind == "ext4":
        check_file_system(image)
    else:
        call("xfs_repair", "-n", image)


def is_known(kind: str) -> bool:
    """Whether the kernel has it, or a module."""
    if shutil.which("modprobe"):
        call("modprobe", "-q", kind, check=False)
    return kind in Path("/proc/filesystems").read_text(encoding="ascii")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    require_loops()
    require_tools("nbdfuse", "fusermount3", "fstrim", "cmp")
    require(os.path.exists("/dev/fuse"), "no /dev/fuse")
    made = Site(tmp_path)
    made.init(f"disk={tmp_path}/disk.img:{SIZE}")
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_file_system(site: Site, kind: str) -> None:
    require_tools(KINDS[kind][0], "e2fsck" if kind == "ext4" else "xfs_repair")
    require(is_known(kind), f"no {kind} in this kernel")
    chance = random.Random(1)
    image = site.path / "disk.img"
    with LiveRecorder(site.journal) as live:
        with block_device(live, site.path / "nbd") as device:
            call(*KINDS[kind], device)
            with mounted(device, site.path / "mnt") as folder:
                planted = plant(folder, 300, chance)
                (folder / "large").write_bytes(chance.randbytes(40 * MIB))
                change(folder, planted, chance)
                os.sync()
                site.run("mark", site.journal, "large")
                (folder / "large").unlink()
                os.sync()
                call("fstrim", folder)
            with mounted(device, site.path / "mnt") as folder:
                call("fstrim", folder)  # XFS trims what an unlink freed only now
                planted |= plant(folder / "more", 100, chance)
        site.run("mark", site.journal, "unmounted")
    site.run("replay", site.journal, site.mirror, "--until", "large", "--quiet")
    assert site.image().stat().st_blocks * 512 > 40 * MIB
    site.prove()
    assert image.stat().st_blocks * 512 < 40 * MIB, "what fstrim freed uses no space"
    check(kind, site.image())
    with mounted(site.image(), site.path / "mnt") as folder:
        found = {path: path.read_bytes() for path in folder.glob("**/file-*")}
        assert found == planted
        assert (folder / "sparse").read_bytes()[7 * MIB :].startswith(b"in the middle")
    other = site.path / "other"
    site.run("replay", site.journal, other, "--until", "unmounted", "--quiet")
    check(kind, other / "volumes" / "disk.img")


def test_every_flush_is_a_sound_file_system(site: Site) -> None:
    """A mirror at any commit is what a power cut of the primary would have left: its journal repairs it."""
    require_tools("mkfs.ext4", "e2fsck")
    chance = random.Random(2)
    with LiveRecorder(site.journal) as live, block_device(live, site.path / "nbd") as device:
        call(*KINDS["ext4"], device, "64M")
        with mounted(device, site.path / "mnt") as folder:
            planted = plant(folder, 60, chance)
            for _ in range(4):
                change(folder, planted, chance)
                os.sync()
    found = [commit.lsn for commit in commits(Journal(str(site.journal)))]
    mounted_at = len(found) // 2
    for lsn in sorted(found[mounted_at :: max(1, len(found) // 8)]):
        site.run("replay", site.journal, site.mirror, "--until", lsn, "--quiet")
        then = site.path / "then.img"
        call("cp", "--sparse=always", site.image(), then)
        done = subprocess.run(["e2fsck", "-f", "-p", then], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stdout
    site.prove()
