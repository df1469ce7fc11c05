"""A primary with an ext4 on it dies under load; what its mirror becomes is that file system, sound, and continues."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from mirrortool.journal.directory import Journal
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call, mounted, require, require_loops, require_tools
from tests.interop.blockdevice import block_device
from tests.interop.tool import Site, assert_same, check_file_system

MIB = 1 << 20
SIZE = 48 * MIB


@pytest.fixture
def site(tmp_path: Path) -> Site:
    require_loops()
    require_tools("nbdfuse", "fusermount3", "mkfs.ext4", "e2fsck", "cmp")
    require(os.path.exists("/dev/fuse"), "no /dev/fuse")
    made = Site(tmp_path)
    made.init(f"disk={tmp_path}/disk.img:{SIZE}")
    return made


class Load:
    """Writes files and makes each durable, until it is stopped or the device is gone.

    Attributes:
        durable: what is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.durable: dict[str, bytes] = {}
        self._stop = threading.Event()
        self._reached = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, count: int) -> None:
        with self._reached:
            assert self._reached.wait_for(lambda: len(self.durable) >= count, 60)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        chance = random.Random(1)
        for number in itertools.count():
            if self._stop.is_set():
                return
            name, content = f"file-{number}", chance.randbytes(chance.randrange(1, 60_000))
            with (self._folder / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with self._reached:
                self.durable[name] = content
                self._reached.notify_all()


def receive(journal: Path, target: Path) -> None:
    """What has arrived at this moment, in the middle of a frame perhaps."""
    target.mkdir()
    shutil.copy(journal / "journal.json", target)
    shutil.copytree(journal / "files", target / "files")


def test_promoted_under_load(site: Site) -> None:
    received = site.path / "received"
    with LiveRecorder(site.journal) as live, block_device(live, site.path / "nbd") as device:
        call("mkfs.ext4", "-q", "-E", "nodiscard", device)
        with mounted(device, site.path / "mnt") as folder:
            load = Load(folder)
            load.wait_for(10)
            site.run("mark", site.journal, "early")
            load.wait_for(25)
            promised = dict(load.durable)
            receive(site.journal, received)
            load.wait_for(len(promised) + 10)
            load.stop()
    site.run("replay", received, site.mirror, "--until", "early", "--quiet")
    site.run("promote", site.mirror, "--yes")
    promoted = Path(Journal(str(received)).volume_paths()["disk"])
    assert promoted == site.image()
    repaired = site.path / "repaired.img"
    call("cp", "--sparse=always", promoted, repaired)
    done = subprocess.run(["e2fsck", "-f", "-p", repaired], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout  # it was mounted: its journal is replayed
    check_file_system(repaired)
    with mounted(repaired, site.path / "mnt") as folder:
        for name, content in promised.items():
            assert (folder / name).read_bytes() == content

    old, site.journal, site.mirror = site.journal, received, site.path / "third"
    with (
        LiveRecorder(site.journal) as live,
        block_device(live, site.path / "nbd-2") as device,
        mounted(device, site.path / "mnt") as folder,
    ):
        assert {name: (folder / name).read_bytes() for name in promised} == promised
        (folder / "after").write_bytes(b"the new primary's")
    check_file_system(promoted)
    site.follow()
    assert_same(promoted, site.image())
    site.run("replay", old, site.mirror, code=13)
