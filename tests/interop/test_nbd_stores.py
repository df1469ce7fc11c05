"""A mirror in a qcow2 image of a real qemu-nbd that is killed under a follower, and started again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.cli.main import main
from tests.fakes.follower import Follower
from tests.fakes.journals import PAGE, Commit, JournalMaker, Write, memory_directory
from tests.fakes.loop import call, require_tools
from tests.fakes.nbdservers import serving_process

PAGES = 64


@pytest.fixture
def place() -> Iterator[Path]:
    require_tools("qemu-img", "qemu-nbd")
    with memory_directory() as path:
        call("qemu-img", "create", "-q", "-f", "qcow2", path / "disk.qcow2", PAGES * PAGE)
        yield path


def test_a_follower_outlives_its_server(place: Path) -> None:
    """What was not flushed when the server was killed is written once more, from the last checkpoint on."""
    command = ["qemu-nbd", "-t", "-e", "8", "-k", f"{place}/s", "-f", "qcow2", f"{place}/disk.qcow2"]
    maker = JournalMaker(place / "J", {"a": PAGES * PAGE})

    def commit(number: int) -> int:
        pages = [Write("a", (number * 7 + n) % PAGES, bytes([number + 1, n]) * (PAGE // 2)) for n in range(20)]
        return maker.frame(*pages, Commit()).lsn

    lsn = commit(0)
    target = f"a=nbd+unix:///?socket={place}/s"
    with serving_process(place, *command) as first, Follower(place / "J", place / "M", "--volume", target) as follower:
        follower.wait_for_commit(lsn)
        for number in range(1, 4):
            lsn = commit(number)
        first.kill()
        first.wait()
        lsn = commit(4)
        follower.wait_for("the server has ended the connection; retrying")
        follower.wait_for("the NBD server cannot be reached: ")
        (place / "s").unlink(missing_ok=True)
        with serving_process(place, *command) as second:
            follower.wait_for_commit(lsn)
            assert second.poll() is None
            follower.stop()
            assert main(["verify", str(place / "M"), "-q"]) == 0
    maker.abandon()
    found = subprocess.run(["qemu-img", "check", "-q", str(place / "disk.qcow2")], check=False)
    assert found.returncode in (0, 3), "leaked clusters alone do no harm"
