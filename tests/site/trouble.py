"""What happens to a site: processes end, power and links fail, clocks step, disks fail; and operators act."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tests.site import actors
from tests.site.hosts import Host
from tests.site.strands import SECOND

if TYPE_CHECKING:
    from tests.site.site import Site

_STEPS_SECONDS = (0.001, 0.5, 3.0, 8.0, 60.0, 3600.0, 86400.0 * 30)


class Trouble:
    """Chooses one event after another."""

    def __init__(self, site: Site) -> None:
        self._site, self._chance = site, site.chance
        events: list[tuple[int, Callable[[], None]]] = [
            (6, self._kill),
            (4, self._cut_power),
            (1, partial(self._cut_power_after, "a flush")),
            (1, partial(self._cut_power_after, "an acknowledgement")),
            (4, self._cut_link),
            (2, self._stall),
            (1, self._take_down),
            (2, self._step_clock),
            (1, self._fill),
            (2, self._fail),
            (2, partial(self._operate, "base")),
            (3, partial(self._operate, "prune")),
            (4, self._fall_behind),
        ]
        self._events = [event for weight, event in events for _ in range(weight)]

    def disturb(self) -> None:
        """Let one thing happen, mostly at one of the next calls."""
        self._chance.choice(self._events)()

    def calm(self) -> None:
        """No more of it."""
        site = self._site
        site.note("calm")
        site.network.down_until_ns = 0
        for host in (site.near, site.far):
            host.calls_left, host.faults, host.is_full = None, 0.0, False
            for process in host.processes:
                process.calls_left = None

    def _host(self) -> Host:
        return self._chance.choice([self._site.near, self._site.far])

    def _calls(self) -> int:
        return self._chance.choice([1, 5, 20, 100]) + self._chance.randrange(20)

    def _kill(self) -> None:
        running = [*self._site.near.processes, *self._site.far.processes]
        if running:
            process = self._chance.choice(running)
            if self._chance.random() < 0.3:
                self._site.kill(process)
            else:
                process.calls_left = self._calls()

    def _cut_power(self) -> None:
        host = self._host()
        if not host.is_up:
            return
        if self._chance.random() < 0.2:
            self._site.cut_power(host)
        else:
            host.calls_left = self._calls()
            self._site.scheduler.sleep(self._chance.choice([0.1, 2.0]))

    def _cut_power_after(self, what: str) -> None:
        """As soon as something is promised to be durable."""
        self._site.cuts_power_after = what
        self._site.scheduler.sleep(self._chance.choice([1.0, 3.0]))
        self._site.cuts_power_after = None

    def _cut_link(self) -> None:
        network = self._site.network
        connection = network.newest()
        if connection is None:
            return
        kind = self._chance.choice(["reset", "near is told", "far is told"])
        self._site.note(f"link: {kind}")
        self._site.seen[f"link cut: {kind}"] += 1
        self._site.seen["link cut"] += 1
        if kind == "reset":
            network.reset(connection)
        else:
            network.half_open(connection, near_is_told=kind == "near is told")

    def _stall(self) -> None:
        connection = self._site.network.newest()
        if connection is not None:
            seconds = self._chance.choice([1.0, 8.0, 35.0])
            self._site.note(f"link stalls for {seconds} s")
            self._site.seen["link stalls"] += 1
            self._site.network.stall(connection, seconds)

    def _take_down(self) -> None:
        """No new connections; the one that is there stalls."""
        seconds = self._chance.choice([5.0, 45.0])
        self._site.note(f"network down for {seconds} s")
        self._site.seen["network down"] += 1
        self._site.network.down_until_ns = self._site.scheduler.now + int(seconds * SECOND)
        if connection := self._site.network.newest():
            self._site.network.stall(connection, seconds)

    def _step_clock(self) -> None:
        host = self._host()
        step = int(self._chance.choice(_STEPS_SECONDS) * SECOND) * self._chance.choice([1, -1])
        host.ahead_ns = max(-(86400 * 90 * SECOND), host.ahead_ns + step)
        self._site.note(f"clock of {host.name} steps by {step / SECOND} s")
        self._site.seen[f"clock steps {'forward' if step > 0 else 'back'}"] += 1

    def _fill(self) -> None:
        """A disk that was full has room, or it is full for a time."""
        host = self._host()
        self._site.note(f"disk of {host.name} is full")
        host.is_full = True
        self._site.scheduler.sleep(self._chance.choice([0.2, 3.0, 12.0]))
        host.is_full = False

    def _fail(self) -> None:
        """Some calls of a host fail for a time."""
        host = self._host()
        self._site.note(f"disk of {host.name} fails")
        host.faults = self._chance.choice([0.02, 0.1, 0.3])
        self._site.scheduler.sleep(self._chance.choice([1.0, 4.0]))
        host.faults = 0.0

    def _operate(self, name: str) -> None:
        """Somebody makes a base, or prunes."""
        site, host = self._site, self._host()
        path = site.flow.journal if host is site.flow.source else site.flow.copy
        if host.is_up and host.find(name) is None:
            act = actors.base if name == "base" else actors.prune_files
            site.start(host, name, lambda _: act(site, path))

    def _fall_behind(self) -> None:
        """Somebody makes a base, and prunes what those need that are behind."""
        site, host = self._site, self._host()
        flow = site.flow
        path, name = (flow.journal, "ship") if host is flow.source else (flow.copy, "follow")
        if not host.is_up or host.find("prune") is not None:
            return
        if process := host.find(name):
            site.kill(process)
            site.scheduler.sleep(self._chance.choice([1.0, 5.0]))
        flow.checks.may_lose.add(path)

        def act(_: object) -> None:
            actors.base(site, path)
            actors.prune_files(site, path, slot_size=0)

        if host.is_up and host.find("prune") is None:
            site.start(host, "prune", act)
            site.scheduler.wait(lambda: host.find("prune") is None, 3.0)
