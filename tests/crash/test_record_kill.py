"""kill -9 of a real recorder at any moment, under clients that know each write which it acknowledged.

kill -9 leaves the kernel its page cache, so every acknowledged write is there afterwards, flushed or not; one that was
not acknowledged is there or not, page by page. Journal, volume and mirror are then the same.

The long run: pytest -m soak tests/crash/test_record_kill.py
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mirrortool.errors import TornJournalError
from mirrortool.journal.commits import commits
from mirrortool.journal.directory import Journal
from mirrortool.nbd.protocol import Command
from mirrortool.operation import CommitKind
from mirrortool.sockets.addresses import UnixAddress
from tests.crash.load import MIB, PAGE, Kit, make_kit
from tests.fakes.live import LiveRecorder
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap, wait_until
from tests.interop.tool import Site
from tests.nbd.wire import Client

KILLS = 6
SOAK_KILLS = 200


@pytest.fixture
def kit() -> Iterator[Kit]:
    with fast_directory() as path:
        yield make_kit(Path(path))


def kill_often(kit: Kit, kills: int, seed: int) -> None:
    """Kill under load; in turn recovery is killed, too, or the journal is replayed as the crash left it."""
    chance = random.Random(seed)
    new = redone = 0
    for number in range(kills):
        kit.live.start()
        redone += any("written to the volumes again" in line for line in kit.live.lines)
        new += kit.model.reconcile(kit.read())
        loads = kit.load(seed * 1000 + number)
        nap(chance.choice([0.02, 0.3, 1.3]) * chance.uniform(0.3, 1.0))
        kit.live.kill()
        kit.join(loads)
        if number % 3 == 1:
            for _ in range(2):
                kit.live.begin()
                nap(chance.uniform(0.1, 0.7))
                kit.live.kill()
        if number % 3 == 2:
            kit.site.run("replay", kit.site.journal, kit.site.mirror, "--quiet")
            kit.site.run("verify", kit.site.mirror, "--quiet")
        if number % 4 == 3:
            kit.live.start()
            new += kit.model.reconcile(kit.read())
            kit.live.finish()
            kit.check_volume()
    kit.live.start()
    new += kit.model.reconcile(kit.read())
    kit.live.finish()
    kit.check_volume()
    print(f"{kills} kills: {kit.model.acknowledged} acknowledged, {kit.model.flushed} flushes, "
          f"{redone} redone, {new} pages of unacknowledged writes were there")  # fmt: skip
    assert kit.model.acknowledged > kills * 20
    assert redone, "no kill left anything to redo"


def test_no_acknowledged_write_is_lost(kit: Kit) -> None:
    kill_often(kit, KILLS, 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_no_acknowledged_write_is_lost_in_200_kills(kit: Kit, seed: int) -> None:
    kill_often(kit, SOAK_KILLS // 10, 100 + seed)


def has_complete_commit(site: Site) -> bool:
    """Whether any commit claims to be a state of the volumes; the tail may be torn."""
    with contextlib.suppress(TornJournalError):
        return any(each.kind != CommitKind.INCOMPLETE for each in commits(Journal(str(site.journal))))
    return False


def test_killed_during_the_initial_scan(tmp_path: Path) -> None:
    """While clients write; no commit claims to be a state of the volume before the scan has ended."""
    site = Site(tmp_path)
    size = 192 * MIB
    content = bytearray(random.Random(4).randbytes(MIB) * (size // MIB))
    for page in range(0, size, PAGE):
        content[page : page + 8] = page.to_bytes(8, "big")
    (tmp_path / "disk.img").write_bytes(content)
    site.init(f"disk={tmp_path}/disk.img")
    live = LiveRecorder(site.journal)
    chance = random.Random(5)
    between = 0
    for number in range(4):
        live.start()
        with Client(UnixAddress(str(live.socket))) as client:
            client.go("disk")
            for _ in range(40):
                page = chance.randrange(size // PAGE) * PAGE
                data = chance.randbytes(8) * 512
                content[page : page + PAGE] = data
                assert client.do(Command.WRITE, page, PAGE, data=data).error == 0
            nap(chance.uniform(0, 0.15))
            live.kill()
        is_complete = has_complete_commit(site)
        between += not is_complete
        if not is_complete and number % 2:
            site.run("mark", site.journal, "early", code=3)
            assert not site.mirror.exists()
    assert between, "no kill ever met the scan"
    live.start()
    live.finish()
    assert (tmp_path / "disk.img").read_bytes() == content
    site.prove()


def test_killed_during_a_clean_stop(kit: Kit) -> None:
    chance = random.Random(6)
    for number in range(4):
        kit.live.start()
        kit.model.reconcile(kit.read())
        loads = kit.load(700 + number)
        kit.wait_answered()
        kit.live.process.terminate()
        nap(chance.uniform(0.0, 0.15))
        kit.live.kill()
        kit.join(loads)
    kit.live.start()
    kit.model.reconcile(kit.read())
    kit.live.finish()
    kit.check_volume()


def test_a_clean_stop_under_load_loses_nothing(kit: Kit) -> None:
    """Whoever was answered is on the volume itself, without any redo."""
    for number in range(3):
        kit.live.start()
        loads = kit.load(800 + number)
        kit.wait_answered()
        kit.live.finish()
        kit.join(loads)
        kit.model.reconcile((kit.site.path / "disk.img").read_bytes())
    kit.check_volume()


def test_a_mark_after_the_kill_is_what_was_acknowledged(kit: Kit) -> None:
    """`mark` acquires the lock, recovers, and names the state that clients had seen."""
    kit.live.start()
    kit.live.wait_for_base()
    loads = kit.load(900)
    kit.wait_answered()
    kit.live.kill()
    kit.join(loads)
    kit.site.run("mark", kit.site.journal, "crash")
    kit.model.reconcile((kit.site.path / "disk.img").read_bytes())
    kit.site.run("replay", kit.site.journal, kit.site.mirror, "--until", "crash", "--quiet")
    assert kit.site.image().read_bytes() == kit.model.image
    kit.live.start()
    kit.live.finish()
    kit.check_volume()


def test_a_scan_after_the_kill_recovers(kit: Kit) -> None:
    kit.live.start()
    loads = kit.load(901)
    kit.wait_answered()
    kit.live.kill()
    kit.join(loads)
    kit.site.run("record", kit.site.journal, "--quiet")
    kit.model.reconcile((kit.site.path / "disk.img").read_bytes())
    kit.check_volume()


def test_a_volume_changed_after_the_kill_is_not_touched(kit: Kit) -> None:
    """Exit 21, and not one byte is written, until the user says that the volume counts."""
    kit.live.start()
    loads = kit.load(902)
    kit.wait_answered()
    kit.live.kill()
    kit.join(loads)
    image = kit.site.path / "disk.img"
    with image.open("r+b") as file:
        file.write(b"somebody else")
    later = time.time_ns() + 3600 * 10**9
    os.utime(image, ns=(later, later))
    before = image.read_bytes()
    for extra in ([], ["--nbd", f"unix:{kit.live.socket}"]):
        kit.site.run("record", kit.site.journal, *extra, code=21)
    assert image.read_bytes() == before
    kit.live = LiveRecorder(kit.site.journal, "--scan")
    kit.live.start()
    kit.live.wait_for_base()
    assert kit.read() == before
    kit.live.finish()
    kit.site.prove()
    assert image.read_bytes() == before


def test_a_volume_changed_at_once_after_the_kill(kit: Kit) -> None:
    """Within a second of the crash, where nothing is redone: refused, or journaled, but never missing from a mirror."""
    kit.live.start()
    kit.live.wait_for_base()
    with Client(UnixAddress(str(kit.live.socket))) as client:
        client.go("disk")
        assert client.do(Command.WRITE, 0, PAGE, data=b"x" * PAGE).error == 0
    kit.live.kill()
    with (kit.site.path / "disk.img").open("r+b") as file:
        file.seek(12 * MIB)
        file.write(b"somebody else")
    kit.live.begin()
    wait_until(lambda: not kit.live.is_running or kit.live.is_serving, told=lambda: kit.live.lines)
    if kit.live.is_running:
        kit.live.finish()
        kit.site.follow()
        assert kit.site.image().read_bytes() == (kit.site.path / "disk.img").read_bytes()
    else:
        assert kit.live.process.returncode == 21


def is_decided(processes: Sequence[subprocess.Popen[Any]]) -> bool:
    """Whether all but one have ended."""
    return sum(process.poll() is not None for process in processes) == len(processes) - 1


def test_two_recorders_started_at_once(kit: Kit) -> None:
    """One serves, the other is refused; whoever it is, the socket is the winner's."""
    for _ in range(2):
        command = [sys.executable, "-m", "mirrortool", "record", kit.site.journal, "--nbd", kit.live.address, "-q"]
        words, pipe = [str(word) for word in command], subprocess.PIPE
        others = [subprocess.Popen(words, stdout=pipe, stderr=pipe) for _ in range(3)]
        kit.live.begin()
        everyone = [*others, kit.live.process]
        wait_until(partial(is_decided, everyone))
        assert sorted(process.returncode or 0 for process in everyone) == [0, 22, 22, 22]
        wait_until(kit.live.socket.exists)  # the winner may still recover
        assert kit.read() == kit.model.image
        (winner,) = [process for process in everyone if process.poll() is None]
        winner.terminate()
        assert winner.wait(30) == 0
        for process in others:
            process.communicate()
    kit.site.prove()
