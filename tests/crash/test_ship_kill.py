"""kill -9 of the sender, its ssh and the receiver, in turn, while the journal grows: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.runs import find_end
from tests.docs.workshop import environment
from tests.fakes.journals import Commit, JournalMaker, Write, memory_directory
from tests.ship.pairs import assert_is_prefix, assert_same, wait_until

SENDER, RELAY, RECEIVER = range(3)


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        rsh = path / "rsh"
        # The shell stays, as ssh does: the receiver is its child.
        rsh.write_text('#!/bin/sh\nshift\nsh -c "exec $1"\nexit $?\n')
        rsh.chmod(0o755)
        yield path


class Shipping:
    """`ship --follow` as a process; it is started anew when it was killed."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known = environment(place / "bin")
        self.start()

    def start(self) -> None:
        command = ["ship", "J", "x:C", "--follow", "--rsh", "./rsh", "-q"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mirrortool", *command],
            cwd=self._place, env=self._known, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def kill(self, which: int) -> None:
        """Kill one of the three, if it is there."""
        victims = [self.process.pid]
        while len(victims) <= which and (below := children_of(victims[-1])):
            victims.append(below[0])
        if len(victims) <= which:
            return
        try:
            os.kill(victims[which], signal.SIGKILL)
        except ProcessLookupError:
            return
        if which == SENDER:
            self.process.wait(30)
            self.start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        assert "Traceback" not in errors


def children_of(pid: int) -> list[int]:
    """Children of all threads of a process; none if it is gone."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(each) for each in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return found


def kill_in_turn(place: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    maker = JournalMaker(place / "J", {"disk": 1 << 20}, file_bytes=20000)
    maker.frame(Commit())
    shipping = Shipping(place)
    pause = threading.Event()
    try:
        for number in range(rounds):
            wait_until(lambda: slot_lsn(maker.journal) == maker.writer.position.lsn, 60)
            for _ in range(chance.randint(1, 40)):
                maker.frame(Write("disk", chance.randrange(2000), chance.randbytes(512)), Commit())
            pause.wait(chance.random() * 0.02)  # of no meaning but to hit another moment
            shipping.kill(number % 3)
            acknowledged = slot_lsn(maker.journal)
            assert_is_prefix(maker.journal, place / "C")
            assert find_end(Journal(str(place / "C"))).lsn >= acknowledged
        wait_until(lambda: slot_lsn(maker.journal) == maker.writer.position.lsn, 60)
        shipping.stop()
    finally:
        shipping.process.kill()
        shipping.process.wait()
    maker.close()
    assert_same(maker.journal, place / "C")


def slot_lsn(journal: Journal) -> int:
    return max((slot.position.lsn for slot in slots.slots(journal)), default=0)


def test_each_is_killed_in_turn(place: Path) -> None:
    kill_in_turn(place, 3, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_each_is_killed_a_hundred_times(place: Path) -> None:
    kill_in_turn(place, 300, 2)
