"""A whole site from one seed: everything that happens follows from an integer, and happens again with it.

Two hosts. On the near one a client writes through a recorder, and a shipper ships the journal; on the far one receivers
take in a copy of it, and a follower replays that into a mirror. Both hosts make bases and prune. All of it is the code
of the package, with its threads, on a model of what is below: disks (tests/fakes/disk.py), links (links.py), clocks and
processes (hosts.py, strands.py).

Safety, looked at after each event: what was acknowledged, or after a power cut flushed, is on the volumes after
recovery; the end of the copy, each slot and the mirror's position are positions of the primary's journal, none ahead of
what is durable there; the mirror, where it says that it is at a commit, is the primary at that commit, byte by byte;
what a slot needs is there; a process ends only with an error that fits what happened to it.
Liveness: when faults stop, the mirror reaches the primary's newest commit within SETTLE_SECONDS of the model's time.

Not covered: the command line (signals, displays), NBD and the control socket, ssh itself, one-way links, direct and
asynchronous I/O; use of a device by others (hostinfo.refuse_used); extended attributes, which are durable at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from mirrortool.record.recorder import Recorder
from mirrortool.ship import messagestream
from mirrortool.ship.link import Link
from tests.fakes.recorders import small_scale
from tests.fakes.volumes import PAGE, adopt, small_journal_files, write_file
from tests.site import actors
from tests.site.checks import Checks
from tests.site.hosts import Host, running_on
from tests.site.ledger import Client, bytes_of
from tests.site.strands import SECOND, Process
from tests.site.trouble import Trouble
from tests.site.world import SIZES, World

SETTLE_SECONDS = 400.0
EVENTS = 12


class Site(World):
    """One run; `run` it once."""

    def __init__(self, seed: int, root: str, *, keeps_log: bool = False) -> None:
        super().__init__(seed, root, keeps_log=keeps_log)
        self.work = self.stream("work")
        self.journal, self.copy = self.near.below("journal"), self.far.below("copy")
        self.mirror = self.far.below("mirror")
        self.volumes = {name: self.near.below(f"{name}.vol") for name in SIZES}
        self.groups = self.chance.choice([1, 1, 2])
        self.client = Client({name: self._content(size) for name, size in SIZES.items()})
        self.recording: actors.Work | None = None
        self._patches = ExitStack()

    def _content(self, size: int) -> bytes:
        return self.chance.choice([bytes(size), self.chance.randbytes(size)])

    def run(self) -> None:
        """All of it.

        Raises:
            AssertionError: a promise was broken.
        """
        with ExitStack() as running:
            patch = running.enter_context(pytest.MonkeyPatch.context())
            small_scale(patch, PAGE)
            small_journal_files(patch, self.chance.choice([6, 12, 30]) * PAGE)
            running.enter_context(running_on(self.scheduler, self.system, self.stream("ids"), self.root))
            patch.setattr(messagestream, "pipes", self.network.pipes())
            running.callback(self.end)
            self._make_primary()
            self.checks, self.trouble = Checks(self), Trouble(self)
            self.network.on_reply = self.checks.hear
            for _ in range(EVENTS):
                self._restart()
                self._pass_time()
                self.checks.look()
                self.trouble.disturb()
            self._settle()
            self.checks.look_at_end()

    def _make_primary(self) -> None:
        for name, path in self.volumes.items():
            write_file(path, bytes(self.client.model.contents[name]))
        adopt(self.near.path, self.volumes, PAGE)

    # Time.

    def _restart(self, *, always: bool = False) -> None:
        """Begin what does not run; mostly."""
        for host in (self.near, self.far):
            if not host.is_up and (always or self.chance.random() < 0.8):
                self.boot(host)
        for host, name, main in self._daemons():
            if host.is_up and host.find(name) is None and (always or self.chance.random() < 0.9):
                self.start(host, name, main)

    def _daemons(self) -> list[tuple[Host, str, Callable[[Process], None]]]:
        return [
            (self.near, "record", self._record),
            (self.near, "ship", partial(actors.ship, self)),
            (self.far, "follow", partial(actors.follow, self)),
        ]

    def _record(self, process: Process) -> None:
        self.recording = actors.Work(self)
        self.recording.run(process)

    def recovered(self, recorder: Recorder) -> None:
        """A recorder has opened the journal."""
        self.client.recovers(bytes_of(self.volumes), lost_power=self.near.name in self.lost_power)
        self.lost_power.discard(self.near.name)
        self.seen["recorder begins"] += 1
        self.seen["torn tail moved away"] += recorder.torn is not None
        self.seen["frames redone"] += recorder.redone > 0

    def connect(self, wake: Callable[[], None]) -> Link:
        return actors.connect(self, wake)

    def _pass_time(self) -> None:
        """Look at once at what a power cut has left, before anything runs there again."""
        scheduler = self.scheduler
        ends = scheduler.now + int(self.chance.choice([0.05, 0.5, 2.0, 2.0, 5.0, 12.0]) * SECOND)
        while scheduler.wait(lambda: self.has_fresh_cut, (ends - scheduler.now) / SECOND):
            self.has_fresh_cut = False
            self.checks.look()

    # The end.

    def _settle(self) -> None:
        """No more faults: everything runs, and the mirror reaches the newest commit in time."""
        self.trouble.calm()
        self._restart(always=True)
        assert self.recording
        self.scheduler.sleep(3.0)
        ends = self.scheduler.now + int(SETTLE_SECONDS * 10**9)
        self.recording.is_ending = True
        while not self.checks.has_caught_up():
            if self.scheduler.now > ends:
                raise AssertionError(f"the mirror does not reach the primary: {self.checks.describe()}")
            self._restart_others()
            self.scheduler.sleep(0.5)

    def _restart_others(self) -> None:
        for host, name, main in self._daemons():
            if name != "record" and host.find(name) is None:
                self.start(host, name, main)
        if self.near.find("record") is None and not self.checks.is_stopped_cleanly():
            self.start(self.near, "record", self._record)
            assert self.recording
            self.scheduler.sleep(1.0)
            self.recording.is_ending = True

    def judge(self, process: Process) -> None:
        self.checks.judge(process)
