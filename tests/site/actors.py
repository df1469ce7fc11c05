"""The processes of a site: what each command does, without its command line."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from mirrortool import clock
from mirrortool.errors import (
    JournalError,
    LinkError,
    NoSpaceError,
    NotComparableError,
    PrunedJournalError,
    UnfinishedArrivalError,
)
from mirrortool.journal import tail
from mirrortool.journal.directory import Journal, is_described
from mirrortool.journal.retention.prune import Keep, prune
from mirrortool.promote import Promotion
from mirrortool.record.initialscan import InitialScan
from mirrortool.record.recorder import Recorder
from mirrortool.replay.engine import Plan
from mirrortool.replay.makebase import MakeBase
from mirrortool.replay.session import Replay
from mirrortool.replay.slotregistration import OWN_SLOT
from mirrortool.ship.destination import Destination, Remote
from mirrortool.ship.link import Link
from mirrortool.ship.messagestream import Stream
from mirrortool.ship.receiverprocess import ReceiverProcess
from mirrortool.ship.sender import Shipment
from mirrortool.ship.shipoptions import ShipOptions
from tests.crash.machine import parts
from tests.fakes.recorders import random_changes
from tests.fakes.volumes import PAGE
from tests.site.links import ModelLink
from tests.site.strands import Process, Threading

if TYPE_CHECKING:
    from tests.site.flow import Flow
    from tests.site.site import Site

REOPEN_SECONDS = 30.0


class Work:
    """`record`, with the client that writes to it, in one process."""

    def __init__(self, site: Site, flow: Flow) -> None:
        self._site, self._flow, self._client = site, flow, flow.client
        self._chance: random.Random = site.work
        self.is_ending = False

    def run(self, process: Process) -> None:
        site = self._site
        recorder = Recorder(self._flow.journal)
        site.recovered(self._flow, recorder)
        with recorder:
            if recorder.incomplete:
                Threading(site.scheduler).Thread(target=InitialScan(recorder).run, name="scan").start()
            while not (self.is_ending or recorder.failure):
                self._step(recorder)
                clock.sleep(self._chance.choice([0.0, 0.001, 0.05, 1.0]))
            if recorder.failure:
                raise recorder.failure
        self._client.was_flushed(self._client.acknowledged)

    def _step(self, recorder: Recorder) -> None:
        client = self._client
        kind = self._chance.choice(["change"] * 6 + ["flush", "fua", "mark", "idle"])
        if kind in ("change", "fua"):
            self._change(recorder)
        if kind in ("flush", "fua"):
            state = client.acknowledged
            recorder.flush()
            client.was_flushed(state)
            client.forget()
            self._site.promised("a flush", self._flow.source)
            self._site.seen["flush"] += 1
        elif kind == "mark" and not recorder.incomplete:
            state = client.acknowledged
            with suppress(NoSpaceError, NotComparableError):
                recorder.commit(f"mark-{self._chance.randrange(5)}")
                client.was_flushed(state)
                self._site.seen["mark"] += 1
        elif kind == "idle":
            clock.sleep(self._chance.choice([2.0, 15.0]))

    def _change(self, recorder: Recorder) -> None:
        client = self._client
        name = self._chance.choice(sorted(client.model.contents))
        changes = random_changes(self._chance, len(client.model.contents[name]), PAGE, 4)
        for change in changes:
            for part in parts(change, PAGE):
                client.begins(name, part)
            try:
                recorder.change(name, [change])
            except NoSpaceError:
                found = {each: recorder.read(each, 0, len(data)) for each, data in client.model.contents.items()}
                client.was_refused(found)
                self._site.seen["change refused for want of room"] += 1
                return
            client.was_acknowledged()
            self._site.seen["zero" if change.data is None else "write"] += 1


def ship(site: Site, flow: Flow, process: Process) -> None:
    """`ship --follow`."""
    options = ShipOptions(follow=True, slot="copy")
    destination = Destination(f"far:{flow.copy}", remote=Remote("far", 0, flow.copy))
    shipment = Shipment(flow.journal, destination, options, lambda wake: connect(site, flow, wake))
    process.told = shipment.stop
    shipment.run()


def connect(site: Site, flow: Flow, wake: Callable[[], None]) -> Link:
    """What ssh does: a connection, and a receiver at its end."""
    network, sender = site.network, site.scheduler.current.process
    assert sender is not None
    connection = network.connect(flow.source, flow.target, flow.checks.hear)
    near, far = connection.near, connection.far
    if not flow.target.is_up:
        network.close(near)
        clock.sleep(site.chance.choice([0.5, 10.0]))
        raise LinkError("no route to host")
    sender.at_end.append(lambda: network.close(near))

    def receive(process: Process) -> None:
        process.at_end.append(lambda: network.close(far))
        ReceiverProcess(flow.copy, Stream(far, far)).run()

    site.start(flow.target, "receive", receive)
    site.seen["connection"] += 1
    return ModelLink(network, near, wake, 30.0)


def follow(site: Site, flow: Flow, process: Process) -> None:
    """`replay --follow`, which opens the replay again as cli/replayfollow.py does."""
    threading = Threading(site.scheduler)
    found = tail.wait_for_journal(flow.copy, threading.Event())  # type: ignore[arg-type]
    assert found
    replay = _open_follower(site, flow)
    while True:
        process.told = replay.cancel
        with replay:
            try:
                replay.run()
                return
            except (PrunedJournalError, UnfinishedArrivalError):
                site.seen["follower starts over"] += 1
            except NoSpaceError:
                pass
        replay = _reopen(site, flow, replay)


def _open_follower(site: Site, flow: Flow) -> Replay:
    plan = Plan(groups=site.groups, tasks=1)
    return Replay(flow.copy, flow.mirror, follow=True, slot=OWN_SLOT, plan=plan)


def _reopen(site: Site, flow: Flow, replay: Replay) -> Replay:
    gives_up_at = clock.monotonic() + REOPEN_SECONDS
    while True:
        clock.sleep(1.0)
        try:
            return _open_follower(site, flow)
        except NoSpaceError:
            continue
        except JournalError:
            if clock.monotonic() > gives_up_at or not replay.journal.is_in_use():
                raise


def base(site: Site, path: str) -> None:
    """`base`."""
    with MakeBase(path) as making:
        making.run()
    site.seen[f"base in {path.rpartition('/')[2]}"] += 1


def prune_files(site: Site, path: str, slot_size: int | None = None) -> None:
    """`prune`."""
    site.flow.checks.see()  # of what goes
    oldest = min(Journal(path).file_starts(), default=1) if is_described(path) else 1
    done = prune(path, Keep(size=site.chance.choice([0, 8_000]), slot_size=slot_size))
    site.flow.checks.look_at_needs(path, oldest)
    site.seen[f"slots lost in {path.rpartition('/')[2]}"] += len(done.plan.lost)
    site.seen[f"files pruned in {path.rpartition('/')[2]}"] += len(done.plan.files)


def promote(site: Site, flow: Flow) -> None:
    """`promote`."""
    with Promotion(flow.mirror, journal_path=flow.copy) as promotion:
        if promotion.plan:
            promotion.drain()
            promotion.verify()
        promotion.carry_out()
    site.seen["promotion"] += 1
