"""Two hosts: a recorder under load, ship to a far copy, replay --follow there; everything is killed in turn.

Whatever is killed, the link included, and however often: the mirror reaches the primary's last commit, is the primary
byte by byte, and on the way there its position is always one that the primary's journal has. Meanwhile both journals
are pruned behind bases, and nothing that a slot needs goes.

The far side runs through `--rsh` with a script in place of ssh; tests/interop/test_ship_ssh.py has the real one.
The long run, 100 kills of each: pytest -m soak tests/crash/test_two_hosts.py
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirrortool.journal.commits import newest_commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.reader import JournalReader
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import CommitKind
from tests.crash.test_record_kill import Kit, Load, make_kit
from tests.fakes.daemon import Daemon, children_of
from tests.fakes.volumes import fast_directory
from tests.fakes.waiting import nap
from tests.interop.tool import assert_same

CATCH_UP_SECONDS = 120.0
VICTIMS = ("recorder", "ship", "receive", "replay", "link")


@dataclass
class Hosts:
    """The primary's kit, and what ships to, receives at and follows on the other host."""

    kit: Kit
    far: Path
    ship: Daemon
    replay: Daemon

    @property
    def mirror(self) -> Path:
        return self.far / "mirror"

    def receivers(self) -> list[int]:
        """Process ids of what the link runs on the far side."""
        wanted = f"receive\0{self.far / 'journal'}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if wanted in command and b"fakersh" not in command:
                    found.append(int(entry.name))
        return found

    def links(self) -> list[int]:
        """Process ids of the script that stands for ssh."""
        return children_of(self.ship.process.pid)

    def start(self) -> None:
        """Whatever is not running."""
        if not self.kit.live.is_running:
            self.kit.live.start()
            self.kit.model.reconcile(self.kit.read())
        for daemon in (self.ship, self.replay):
            if not daemon.is_running:
                daemon.start()

    def kill(self, victim: str) -> None:
        """kill -9 of one of VICTIMS, if it is there at the moment."""
        if victim == "recorder":
            self.kit.live.kill()
        elif victim == "ship":
            self.ship.kill()
        elif victim == "replay":
            self.replay.kill()
        else:
            for process in self.receivers() if victim == "receive" else self.links():
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def check_not_ahead(self) -> None:
        """What the mirror holds is in the primary's journal."""
        if (self.mirror / "mirror.json").exists():
            position = Mirror(str(self.mirror)).checkpoint.position
            journal = Journal(str(self.kit.site.journal))
            if position.lsn + 1 >= min(journal.file_starts(), default=1):
                JournalReader(journal, position).close()

    def wait_caught_up(self) -> None:
        """Until the mirror is at the newest commit of a primary that rests."""
        journal = Journal(str(self.kit.site.journal))

        def is_caught_up() -> bool:
            assert self.ship.is_running, self.ship.lines[-20:]
            newest = newest_commits(journal, 1)[-1]
            is_there = (self.mirror / "mirror.json").exists()
            return is_there and Mirror(str(self.mirror)).checkpoint.position.lsn >= newest.lsn

        self.replay.wait_until(is_caught_up, CATCH_UP_SECONDS)

    def prove(self) -> None:
        """At rest: the mirror is the primary, byte by byte and by state sum, and verifies."""
        self.kit.live.finish()
        self.wait_caught_up()
        self.replay.stop()
        checkpoint = Mirror(str(self.mirror)).checkpoint
        assert checkpoint.is_consistent
        newest = newest_commits(Journal(str(self.kit.site.journal)), 1)[-1]
        assert (checkpoint.position, checkpoint.state_sum) == (newest.position, newest.state_sum)
        assert newest.kind != CommitKind.INCOMPLETE
        image = self.mirror / "volumes" / "disk.img"
        assert image.read_bytes() == self.kit.model.image
        assert_same(self.kit.site.path / "disk.img", image)
        self.kit.site.run("verify", self.mirror, "--quiet")
        self.kit.site.run("verify", self.far / "journal", "--quiet")
        self.ship.check()
        self.replay.check()

    def prune(self) -> None:
        """Bases on both sides, and the least that is promised behind them."""
        for journal in (self.kit.site.journal, self.far / "journal"):
            if not (journal / "journal.json").exists():
                continue
            self.kit.site.run("base", journal, "--quiet")
            self.kit.site.run("prune", journal, "--keep-size", "1M", "--quiet")

    def end(self) -> None:
        for daemon in (self.ship, self.replay):
            if daemon.is_running:
                daemon.kill()
        if self.kit.live.is_running:
            self.kit.live.kill()
        for process in self.receivers():
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with fast_directory() as path:
        made = make_hosts(Path(path))
        try:
            yield made
        finally:
            made.end()


def make_hosts(path: Path) -> Hosts:
    primary, far = path / "primary", path / "far"
    primary.mkdir()
    far.mkdir()
    kit = make_kit(primary)
    rsh = path / "fakersh"
    rsh.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    rsh.chmod(0o755)
    remote = f"{sys.executable} -m mirrortool"
    ship = Daemon(
        "ship", kit.site.journal, f"far:{far}/journal", "--follow", "--rsh", rsh, "--remote-path", remote,
        "--timeout", "15s",
    )  # fmt: skip
    replay = Daemon("replay", far / "journal", far / "mirror", "--follow")
    return Hosts(kit, far, ship, replay)


def kill_in_turn(hosts: Hosts, rounds: int, seed: int, *, prune_every: int) -> None:
    chance = random.Random(seed)
    loads: list[Load] = []
    for number in range(rounds):
        hosts.start()
        if not loads:
            loads = hosts.kit.load(seed * 1000 + number)
        nap(chance.uniform(0.05, 0.8))
        victim = VICTIMS[number % len(VICTIMS)]
        hosts.kill(victim)
        if victim == "recorder":
            hosts.kit.join(loads)
            loads = []
        hosts.check_not_ahead()
        if number % prune_every == prune_every - 1:
            hosts.start()
            hosts.prune()
    hosts.start()
    if loads:
        hosts.kit.live.stop()
        hosts.kit.join(loads)
        hosts.start()
    hosts.prove()


def test_the_mirror_gets_there_whatever_is_killed(hosts: Hosts) -> None:
    kill_in_turn(hosts, 5, 1, prune_every=4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(5))
def test_the_mirror_gets_there_in_100_kills_of_each(hosts: Hosts, seed: int) -> None:
    kill_in_turn(hosts, 100, 100 + seed, prune_every=21)
