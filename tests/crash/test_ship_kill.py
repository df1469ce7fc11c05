"""kill -9 of the sender, its ssh and the receiver, in turn, while the journal grows: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mirrortool.journal import slots
from mirrortool.journal.directory import Journal
from mirrortool.journal.rawframes import find_end
from tests.docs.workshop import environment
from tests.fakes.daemon import Daemon, children_of
from tests.fakes.journals import Commit, JournalMaker, Write, memory_directory
from tests.fakes.waiting import nap
from tests.ship.pairs import assert_is_prefix, assert_same

SENDER, RELAY, RECEIVER = range(3)


@pytest.fixture
def place() -> Iterator[Path]:
    with memory_directory() as path:
        rsh = path / "rsh"
        # The shell stays, as ssh does: the receiver is its child.
        rsh.write_text('#!/bin/sh\nshift\nsh -c "exec $1"\nexit $?\n')
        rsh.chmod(0o755)
        yield path


class Shipping(Daemon):
    """`ship --follow`, and what it runs; it is started anew when it was killed."""

    def __init__(self, place: Path) -> None:
        command = ["ship", "J", "x:C", "--follow", "--rsh", "./rsh", "-q"]
        super().__init__(*command, directory=place, environment=environment(place / "bin"))

    def kill_one(self, which: int) -> None:
        """Kill one of the three, if it is there."""
        if which == SENDER:
            self.kill()
            self.start()
            return
        victims = [self.process.pid]
        while len(victims) <= which and (below := children_of(victims[-1])):
            victims.append(below[0])
        if len(victims) > which:
            with suppress(ProcessLookupError):
                os.kill(victims[which], signal.SIGKILL)


def kill_in_turn(place: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    maker = JournalMaker(place / "J", {"disk": 1 << 20}, file_bytes=20000)
    maker.frame(Commit())
    with Shipping(place) as shipping:
        for number in range(rounds):
            shipping.wait_until(lambda: slot_lsn(maker.journal) == maker.writer.position.lsn)
            for _ in range(chance.randint(1, 40)):
                maker.frame(Write("disk", chance.randrange(2000), chance.randbytes(512)), Commit())
            nap(chance.random() * 0.02)
            shipping.kill_one(number % 3)
            acknowledged = slot_lsn(maker.journal)
            assert_is_prefix(maker.journal, place / "C")
            assert find_end(Journal(str(place / "C"))).lsn >= acknowledged
        shipping.wait_until(lambda: slot_lsn(maker.journal) == maker.writer.position.lsn)
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
