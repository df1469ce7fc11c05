"""A whole site from one seed: everything that happens follows from an integer, and happens again with it.

Two hosts. On the near one a client writes through a recorder, and a shipper ships the journal; on the far one receivers
take in a copy of it, and a follower replays that into a mirror. Both hosts make bases and prune. All of it is the code
of the package, with its threads, on a model of what is below: disks (tests/fakes/disk.py), links (links.py), clocks and
processes (hosts.py, strands.py).

Safety, looked at after each event: what was acknowledged, or after a power cut flushed, is on the volumes after
recovery; the end of the copy, each slot and the mirror's position are positions of the primary's journal, none ahead of
what is durable there; the mirror, where it says that it is at a commit, is the primary at that commit, byte by byte;
what a slot needs is there; a process ends only with an error that fits what happened to it.
After a promotion of the mirror the old primary, which may come back, is refused by name, and what it sends changes
nothing; the new one is shipped back to the near host, where all of this holds again.
Liveness: when faults stop, the mirror reaches the primary's newest commit within SETTLE_SECONDS of the model's time.

Not covered: the command line (signals, displays), NBD and the control socket, ssh itself, one-way links, direct and
asynchronous I/O; use of a device by others (hostinfo.refuse_used); extended attributes, which are durable at once.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from mirrortool.errors import ForkedJournalError, MirrortoolError
from mirrortool.journal.directory import Journal
from mirrortool.mirror.directory import Mirror
from mirrortool.record.recorder import Recorder
from mirrortool.ship import messagestream
from tests.fakes.journals import images_of
from tests.fakes.recorders import small_scale
from tests.fakes.volumes import PAGE, adopt, small_journal_files, write_file
from tests.site import actors
from tests.site.checks import Checks
from tests.site.ends import is_expected
from tests.site.flow import Flow
from tests.site.hosts import running_on
from tests.site.ledger import Client, Witness, bytes_of
from tests.site.strands import SECOND, Process
from tests.site.trouble import Trouble
from tests.site.world import SIZES, World

SETTLE_SECONDS = 400.0
EVENTS, EVENTS_MANY = 4, 14
EVENTS_AFTER_PROMOTION = 2
PROMOTIONS = 0.35
"""The share of the seeds that promote the mirror."""
_DAEMONS = ("record", "ship", "follow")


class Site(World):
    """One run; `run` it once.

    Attributes:
        flow: from the primary, which is the new one after a promotion, to its mirror.
        former: that of a primary that was replaced.
    """

    flow: Flow
    former: Flow | None = None

    def __init__(self, seed: int, root: str, *, is_long: bool = False, keeps_log: bool = False) -> None:
        super().__init__(seed, root, keeps_log=keeps_log)
        self._is_long = is_long
        self.work = self.stream("work")
        self.groups = self.chance.choice([1, 1, 2])
        self._wrong: list[str] = []
        self._is_promoting = False

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
            self.flow = self._first_flow()
            self.trouble = Trouble(self)
            self._disturb(EVENTS_MANY if self._is_long else EVENTS)
            if self.chance.random() < PROMOTIONS and self._promote():
                self._refuse_former()
                self._disturb(EVENTS_AFTER_PROMOTION)
            self._settle()
            self.flow.checks.look_at_end()

    def _first_flow(self) -> Flow:
        client = Client({name: self._content(size) for name, size in SIZES.items()})
        volumes = {name: self.near.below(f"{name}.vol") for name in SIZES}
        for name, path in volumes.items():
            write_file(path, bytes(client.model.contents[name]))
        journal = adopt(self.near.path, volumes, PAGE).journal
        copy, mirror = self.far.below("copy"), self.far.below("mirror")
        return self._checked(Flow(self.near, self.far, journal.path, volumes, copy, mirror, client, Witness(journal)))

    def _content(self, size: int) -> bytes:
        return self.chance.choice([bytes(size), self.chance.randbytes(size)])

    def _checked(self, flow: Flow) -> Flow:
        flow.checks = Checks(self, flow)
        return flow

    # Time.

    def _disturb(self, count: int) -> None:
        for _ in range(count):
            self._restart()
            self._pass_time(self.chance.choice([0.05, 0.5, 2.0, 2.0, 4.0, 12.0 if self._is_long else 3.0]))
            self.flow.checks.look()
            self.trouble.disturb()

    def _pass_time(self, seconds: float) -> None:
        """Look at once at what a power cut has left, before anything runs there again."""
        scheduler = self.scheduler
        ends = scheduler.now + int(seconds * SECOND)
        while scheduler.wait(lambda: self.has_fresh_cut, (ends - scheduler.now) / SECOND):
            self.has_fresh_cut = False
            self.flow.checks.look()

    def _restart(self, *, always: bool = False) -> None:
        """Begin what does not run; mostly."""
        for host in (self.near, self.far):
            if not host.is_up and (always or self.chance.random() < 0.8):
                self.boot(host)
        for name in _DAEMONS:
            if always or self.chance.random() < 0.9:
                self._begin(name)

    def _begin(self, name: str, flow: Flow | None = None) -> None:
        flow = flow or self.flow
        host = flow.target if name == "follow" else flow.source
        mains: dict[str, Callable[[Process], None]] = {
            "record": partial(self._record, flow),
            "ship": partial(actors.ship, self, flow),
            "follow": partial(actors.follow, self, flow),
        }
        if host.is_up and host.find(name) is None:
            self.start(host, name, mains[name])

    def _record(self, flow: Flow, process: Process) -> None:
        flow.recording = actors.Work(self, flow)
        flow.recording.run(process)

    def recovered(self, flow: Flow, recorder: Recorder) -> None:
        """A recorder has opened the journal."""
        flow.client.recovers(bytes_of(flow.volumes), lost_power=flow.source.name in self.lost_power)
        self.lost_power.discard(flow.source.name)
        self.seen["recorder begins"] += 1
        self.seen["torn tail moved away"] += recorder.torn is not None
        self.seen["frames redone"] += recorder.redone > 0

    # How processes end.

    def judge(self, process: Process) -> None:
        error = process.error
        if is_expected(process, is_promoting=self._is_promoting):
            self.seen[f"{process.name} ended: {type(error).__name__ if error else 'well'}"] += 1
        else:
            self._wrong.append(describe(process))

    def check_ends(self) -> None:
        """Every process that ended had a reason."""
        assert not self._wrong, self._wrong[0]

    # Promotion.

    def _promote(self) -> bool:
        """The mirror becomes the primary, whatever the old one does meanwhile; False if that is not possible."""
        flow = self.flow
        if self.chance.random() < 0.5 and self.near.is_up:
            self.cut_power(self.near)
        self._pass_time(0.1)
        self.network.down_until_ns = 1 << 62
        for process in list(self.far.processes):
            self.kill(process)
        if not self.far.is_up:
            self.boot(self.far)
        for host in (self.near, self.far):
            host.calls_left, host.faults, host.is_full = None, 0.0, False
        self.flow.checks.look()
        self._is_promoting = True
        while not self._is_promoted():
            if not self.far.is_up:
                self.boot(self.far)
            process = self.start(self.far, "promote", lambda _: actors.promote(self, flow))
            if self.chance.random() < 0.6:
                if self.chance.random() < 0.5:
                    process.calls_left = self.chance.randrange(1, 250)
                else:
                    self.far.calls_left = self.chance.randrange(1, 250)
            self.scheduler.wait(lambda process=process: process.has_ended)  # type: ignore[misc]
            self.far.calls_left = None
            self.has_fresh_cut = False
            self.check_ends()
            if process.error is not None:  # no state of the primary has arrived yet
                self.seen["nothing to promote"] += 1
                assert not self._has_begun()
                self.network.down_until_ns = 0
                self._is_promoting = False
                return False
        self._take_over(flow)
        return True

    def _has_begun(self) -> bool:
        try:
            return Mirror(self.flow.mirror).promoted is not None
        except MirrortoolError:
            return False

    def _is_promoted(self) -> bool:
        """The promotion is complete."""
        if not self._has_begun():
            return False
        try:
            return Journal(self.flow.copy).epoch > 0
        except MirrortoolError:
            return False

    def _take_over(self, flow: Flow) -> None:
        """From now on the mirror's volumes are the primary."""
        promoted = Mirror(flow.mirror).promoted
        assert promoted
        known = flow.witness.find(promoted.epoch.start)
        assert known and known.is_commit, f"promoted at {promoted.epoch.start}, which the primary did not have"
        assert images_of(flow.mirror) == known.contents
        journal = Journal(flow.copy)
        flow.is_replaced, self.former = True, flow
        self.lost_power.discard(self.far.name)
        copy, mirror = self.near.below("copy"), self.near.below("mirror")
        self.flow = self._checked(
            Flow(
                *(self.far, self.near, journal.path, journal.volume_paths(), copy, mirror),
                *(Client(known.contents), flow.witness.continues(journal, known.position)),
            )
        )

    def _refuse_former(self) -> None:
        """The old primary comes back beside the new one: what it sends is refused, and changes nothing."""
        former = self.former
        assert former
        self.network.down_until_ns = 0
        if not self.near.is_up:
            self.boot(self.near)
        if self.chance.random() < 0.7:
            self._begin("record")
            self._begin("record", former)
            self._pass_time(3.0)
        if process := self.near.find("ship"):
            self.kill(process)
        self._begin("ship", former)
        shipper = self.near.find("ship")
        assert shipper
        if not self.scheduler.wait(lambda: shipper.has_ended, 200.0):
            raise AssertionError("the old primary's shipper is not refused")
        self.check_ends()
        assert getattr(shipper.error, "exit_code", 0) == ForkedJournalError.exit_code, describe(shipper)
        self.seen["old primary is refused"] += 1
        for process in list(self.near.processes):
            self.kill(process)
        self.flow.checks.look()

    # The end.

    def _settle(self) -> None:
        """No more faults: everything runs, and the mirror reaches the newest commit in time."""
        flow = self.flow
        self.trouble.calm()
        self._restart(always=True)
        self._pass_time(3.0)
        ends = self.scheduler.now + int(SETTLE_SECONDS * SECOND)
        while not flow.checks.has_caught_up():
            if self.scheduler.now > ends:
                raise AssertionError(f"the mirror does not reach the primary: {flow.checks.describe()}")
            for name in _DAEMONS:
                if name != "record" or not flow.checks.is_stopped_cleanly():
                    self._begin(name)
            self.scheduler.sleep(1.0)
            if flow.recording:
                flow.recording.is_ending = True


def describe(process: Process) -> str:
    """How a process ended."""
    error = process.error
    return f"{process.host.name}/{process.name} ended: {error!r}\n{''.join(traceback.format_exception(error))}"
