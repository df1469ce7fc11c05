"""Two hosts: a recorder under load and a shipper on one, a copy of the journal and a mirror that follows on the other.

Whatever is done to them in turn: the mirror reaches the primary's last commit and is the primary byte by byte, on the
way there its position, and the end of the copy, are always what the primary's journal has, and nothing is pruned that a
slot needs. Nobody ends by himself but for want of space.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mirrortool.errors import NoSpaceError, TornJournalError
from mirrortool.journal.commits import newest_commits
from mirrortool.journal.directory import Journal
from mirrortool.journal.position import Position
from mirrortool.journal.rawframes import find_end
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.slots import slots
from mirrortool.mirror.directory import Mirror
from mirrortool.operation import CommitKind
from tests.fakes.daemon import PROGRAM, Daemon, children_of
from tests.fakes.live import LiveRecorder
from tests.fakes.loop import call
from tests.fakes.processes import kill_all
from tests.fakes.waiting import nap
from tests.interop.tool import Site, assert_same

CATCH_UP_SECONDS = 120.0


class Work(Protocol):
    """What writes to the primary's volume, as long as its server lives."""

    @property
    def is_on(self) -> bool:
        """It was begun, and not joined."""

    @property
    def failure(self) -> object:
        """What it has found wrong; it writes no more then."""

    def recovered(self) -> None:
        """The recorder serves again after it was killed."""

    def begin(self, seed: int) -> None:
        """Begin to write."""

    def ending(self) -> None:
        """The server is about to end."""

    def join(self) -> None:
        """The server has ended: so does the work.

        Raises:
            AssertionError: it found something wrong.
        """

    def finish(self) -> None:
        """Write what must be there in the end; the server serves nobody else."""

    def check(self, image: Path) -> None:
        """A file is what was written."""


class Hosts:
    """Both hosts.

    Attributes:
        site: the primary's journal, and a mirror path that nobody uses.
        copy, mirror: on the other host.
        troubles: by name, what can happen to them; each does it, and returns how many processes it met, if it looks for
            any.
        seen: how often each happened to somebody, and how often what is promised was looked at.
    """

    def __init__(
        self, site: Site, live: LiveRecorder, work: Work, copy: Path, mirror: Path, ship: Daemon, replay: Daemon
    ) -> None:
        self.site, self.live, self.work = site, live, work
        self.copy, self.mirror = copy, mirror
        self.ship, self.replay = ship, replay
        self.seen: Counter[str] = Counter()
        self.troubles: dict[str, Callable[[], int | None]] = {
            "recorder": self.kill_recorder,
            "ship": self.ship.kill,
            "receive": lambda: kill_all(self.receivers()),
            "replay": self.replay.kill,
            "link": lambda: kill_all(children_of(self.ship.process.pid)),
        }

    def receivers(self) -> list[int]:
        """Process ids of what takes in the copy."""
        wanted = f"receive\0{self.copy}".encode()
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and has(entry, wanted)]

    def kill_recorder(self) -> None:
        self.work.ending()
        self.live.kill()
        self.work.join()

    def start(self, seed: int | None = None) -> None:
        """Whatever is not running; work too, with a seed."""
        if not self.live.is_running:
            self.live.start()
            self.work.recovered()
        for daemon in (self.ship, self.replay):
            if not daemon.is_running:
                assert daemon.ended_with in (None, -signal.SIGKILL, NoSpaceError.exit_code), daemon.lines[-20:]
                daemon.start()
        if seed is not None and not self.work.is_on:
            self.work.begin(seed)

    def run(
        self,
        chance: random.Random,
        turns: list[str],
        *,
        prune_every: int,
        pause_seconds: float = 0.8,
        is_patient: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Let these troubles come one after another, and prove in the end that they did no harm.

        Args:
            pause_seconds: the most that lies between two, besides.
            is_patient: whether one of them comes only when everything is running again.
        """
        for number, name in enumerate(turns, 1):
            self.start(chance.randrange(1 << 30))
            if is_patient(name):
                self.wait_for_more()
            nap(chance.uniform(0.05, pause_seconds))
            self.trouble(name)
            self.check_not_ahead()
            if number % prune_every == 0:
                self.start(chance.randrange(1 << 30))
                self.prune()
        self.start()
        self.work.ending()
        self.live.stop()
        if self.work.is_on:
            self.work.join()
        self.prove()

    def trouble(self, name: str) -> None:
        """Do one of the troubles."""
        self.seen[name] += self.troubles[name]() != 0

    def wait_for_more(self) -> None:
        """Until the copy grows: everything between the recorder and its files works."""
        before = newest_file(self.copy)

        def grows() -> bool:
            assert not self.work.failure, self.work.failure
            return newest_file(self.copy) != before

        self.ship.wait_until(grows)

    def check_not_ahead(self) -> None:
        """What the other host has is in the primary's journal."""
        if (self.copy / "journal.json").exists():
            self._check_has(find_end(Journal(str(self.copy))), "copy is not ahead")
        if (self.mirror / "mirror.json").exists():
            self._check_has(Mirror(str(self.mirror)).checkpoint.position, "mirror is not ahead")

    def _check_has(self, position: Position, what: str) -> None:
        journal = Journal(str(self.site.journal))
        if position.lsn + 1 >= min(journal.file_starts(), default=1):
            JournalReader(journal, position).close()
            self.seen[what] += 1

    def wait_caught_up(self) -> None:
        """Until the mirror is at the newest commit of an idle primary."""
        journal = Journal(str(self.site.journal))

        def is_caught_up() -> bool:
            assert self.ship.is_running, self.ship.lines[-20:]
            newest = newest_commits(journal, 1)[-1]
            is_there = (self.mirror / "mirror.json").exists()
            return is_there and Mirror(str(self.mirror)).checkpoint.position.lsn >= newest.lsn

        self.replay.wait_until(is_caught_up, CATCH_UP_SECONDS)

    def prove(self) -> None:
        """At rest: the mirror is the primary, byte by byte and by state sum, and all of it verifies."""
        self.start()
        self.work.finish()
        self.live.finish()
        self.wait_caught_up()
        self.replay.stop()
        checkpoint = Mirror(str(self.mirror)).checkpoint
        assert checkpoint.is_consistent
        newest = newest_commits(Journal(str(self.site.journal)), 1)[-1]
        assert (checkpoint.position, checkpoint.state_sum) == (newest.position, newest.state_sum)
        assert newest.kind != CommitKind.INCOMPLETE
        image = self.mirror / "volumes" / "disk.img"
        assert_same(self.site.path / "disk.img", image)
        self.work.check(image)
        for place in (self.mirror, self.copy, self.site.journal):
            self.site.run("verify", place, "--quiet")
        self.ship.check()
        self.replay.check()

    def prune(self) -> None:
        """Bases on both sides, and the least that is promised behind them; what slots need stays."""
        for path in (self.site.journal, self.copy):
            if not (path / "journal.json").exists():
                continue
            # As processes: while this one starts others in a thread, a lock that it gives back may stay for a moment.
            call(*PROGRAM, "base", path, "--quiet")
            told = json.loads(call(*PROGRAM, "prune", path, "--keep-size", "1M", "--json", "--quiet"))
            self.seen["pruned files"] += len(told["files_removed"])
            self._check_slots(Journal(str(path)))

    def _check_slots(self, journal: Journal) -> None:
        for slot in slots(journal):
            assert not slot.is_lost, slot
            if slot.via:  # what the other host's journal keeps for it is looked at there
                continue
            with JournalReader(journal, slot.position) as reader:
                try:
                    reader.next_header()
                except TornJournalError:
                    assert journal.is_in_use() or journal.path == str(self.copy)
            self.seen["slot is kept"] += 1

    def end(self) -> None:
        """Everything, at once."""
        for daemon in (self.ship, self.replay):
            if daemon.is_running:
                daemon.kill()
        if self.live.is_running:
            self.live.kill()
        kill_all(self.receivers())


def has(entry: Path, wanted: bytes) -> bool:
    """Whether a process in /proc, which may be gone by now, has this in its command line."""
    try:
        return wanted in (entry / "cmdline").read_bytes()
    except OSError:
        return False


def newest_file(journal: Path) -> tuple[str, int]:
    """Name and size of a journal's newest file."""
    names = os.listdir(journal / "files") if (journal / "files").exists() else []
    return max(((name, (journal / "files" / name).stat().st_size) for name in names), default=("", 0))
