"""Two hosts, their processes, and what these meet: the stage of a site (site.py)."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator

from tests.fakes.disk import Call, LosingSync
from tests.fakes.volumes import PAGE
from tests.site.hosts import Host, SiteOs
from tests.site.links import Network
from tests.site.strands import SECOND, KilledError, Process, Scheduler

STEPS_MAX = 400_000
SIZES = {"a": 12 * PAGE + 7, "b": 3 * PAGE}
_LAST_EVENTS = 80
_READS = ("open", "pread", "preadv")
_NEED_ROOM = ("create", "mkdir", "symlink", "pwrite", "pwritev", "reserve", "rename")
_SYNCS = ("fdatasync", "fsync")
_MAY_FAIL = (*_NEED_ROOM, *_SYNCS, "ftruncate")


class World:
    """One run's hosts.

    Attributes:
        seen: how often each thing happened.
        cuts_power_after: what must be promised to be durable next for a host to lose its power at once.
        lost_power: hosts that did, since what is on them was last recovered.
    """

    def __init__(self, seed: int, root: str, *, keeps_log: bool = False) -> None:
        self.seed, self.root = seed, root
        self.chance = self.stream("events")
        self._fault_chance = self.stream("faults")
        self.seen: Counter[str] = Counter()
        self._log: deque[tuple[int, str, str]] = deque(maxlen=None if keeps_log else _LAST_EVENTS)
        self.scheduler = Scheduler(self.stream("schedule"), STEPS_MAX)
        self.scheduler.switching = self.chance.choice([0.02, 0.1, 0.3])
        self.network = Network(self.scheduler, self.stream("links"))
        self.network.delay_seconds = self.chance.choice([0.0005, 0.01, 0.2])
        self.network.on_call = self._on_link_call
        self._pids = 100
        paths = [f"{root}/near", f"{root}/far"]
        for path in paths:
            os.mkdir(path)
        self.system = SiteOs(self.scheduler, paths, self._on_file_call, seed)
        disks = [self.system.disk_of(f"{path}/") for path in paths]
        assert disks[0] and disks[1]
        self.near, self.far = Host("near", paths[0], disks[0]), Host("far", paths[1], disks[1])
        self.near.others, self.far.others = [self.far], [self.near]
        self.lost_power: set[str] = set()
        self.cuts_power_after: str | None = None
        self.has_fresh_cut = False  # that nobody has looked at
        for host in (self.near, self.far):
            host.ahead_ns = int(self.chance.uniform(-5, 5) * SECOND) * self.chance.choice([0, 1, 1000])

    def stream(self, name: str) -> random.Random:
        """Chances of their own, so that a new use of one leaves the others."""
        return random.Random(f"site {self.seed} {name}")

    # What happened.

    def note(self, text: str, what: str = "") -> None:
        """An event."""
        strand, process = self.scheduler.current, self.scheduler.current.process
        where = f"{process.host.name}/{process.name}#{strand.ident}" if process else strand.name
        self._log.append((self.scheduler.now, where, f"{text} {what}" if what else text))

    def lines(self) -> list[str]:
        """The events that are kept, a line each."""
        return [f"{now / SECOND:12.6f} {where}: {text}".replace(self.root, "") for now, where, text in self._log]

    # Processes.

    def start(self, host: Host, name: str, main: Callable[[Process], None]) -> Process:
        """Begin one."""
        self._pids += 1
        process = Process(name, host, self._pids)
        host.processes.append(process)

        def ended() -> None:
            host.processes.remove(process)
            how = "was killed" if process.was_killed else f"ended: {process.error!r}"
            self.note(f"{host.name}/{name} {how}")
            if not process.was_killed:
                self.judge(process)

        process.at_end.append(ended)
        self.note(f"begin {host.name}/{name}")
        self.scheduler.spawn(name, process, lambda: main(process))
        return process

    def judge(self, process: Process) -> None:
        """A process has ended by itself."""

    def kill(self, process: Process) -> None:
        self.note(f"kill {process.host.name}/{process.name}")
        self.seen[f"kill of {process.name}"] += 1
        self.scheduler.kill(process)

    def cut_power(self, host: Host) -> None:
        """All of a host ends, and of what was not synced there some is lost."""
        self.note(f"power cut of {host.name}")
        self.seen[f"power cut of {host.name}"] += 1
        host.is_up, host.calls_left = False, None
        for process in list(host.processes):
            self.scheduler.end(process)
        host.disk.cut_power(self.chance)
        self.lost_power.add(host.name)
        self.has_fresh_cut = True
        for connection in self.network.connections:  # nobody tells the other end, or its next packet is answered so
            if connection.near in self.network.ends or connection.far in self.network.ends:
                self.network.lose_end(connection, is_near=host is connection.hosts[0])

    def promised(self, what: str, host: Host) -> None:
        """A process has just promised that something is durable on its host."""
        if self.cuts_power_after == what:
            self.cuts_power_after = None
            self.seen[f"power cut after {what}"] += 1
            self.cut_power(host)
            raise KilledError

    def boot(self, host: Host) -> None:
        self.note(f"boot {host.name}")
        host.is_up = True
        host.boots += 1
        host.booted_ns = self.scheduler.now

    def end(self) -> None:
        """Of every process."""
        for host in (self.near, self.far):
            for process in list(host.processes):
                self.scheduler.kill(process)

    # What calls meet.

    def _on_file_call(self, call: Call) -> None:
        self._meet(call.name)
        if call.name not in _READS:
            self.note(call.name, call.path)
            process = self.scheduler.current.process
            assert process is not None
            self._may_fail(call, process.host)

    def _may_fail(self, call: Call, host: Host) -> None:
        if host.is_full and call.name in _NEED_ROOM:
            self._fail(host, call.path, errno.ENOSPC)
        if host.faults and self._fault_chance.random() < host.faults and call.name in _MAY_FAIL:
            is_sync = call.name in _SYNCS
            code = errno.EIO if is_sync or self._fault_chance.random() < 0.3 else errno.ENOSPC
            self._fail(host, call.path, code, is_sync)

    def _fail(self, host: Host, path: str, code: int, is_sync: bool = False) -> None:
        host.has_failed = True
        name = "failing sync" if is_sync else errno.errorcode[code]
        self.note("fails:", name)
        self.seen[f"{name} of {host.name}"] += 1
        raise LosingSync(code) if is_sync and self._may_lose(path) else OSError(code, os.strerror(code))

    def _may_lose(self, path: str) -> bool:
        """The kernel tells each process that has the file open of a sync that lost something; this model only one.

        So of what several have open, nothing is lost.
        """
        processes = (process for host in (self.near, self.far) for process in host.processes)
        return sum(process.has_open(path) for process in processes) < 2

    def _on_link_call(self, name: str) -> None:
        self._meet(name)
        self.note(name)

    def _meet(self, name: str) -> None:
        self.scheduler.point()
        process = self.scheduler.current.process
        assert process is not None
        if process.calls_left is not None:
            process.calls_left -= 1
            if process.calls_left <= 0:
                process.calls_left = None
                self.note(f"at {name}")
                self.kill(process)
        if process.host.calls_left is not None:
            process.host.calls_left -= 1
            if process.host.calls_left <= 0:
                self.note(f"at {name}")
                self.cut_power(process.host)
                raise KilledError


def below(root: str) -> Iterator[str]:
    """Every path of a directory tree."""
    for directory, _, names in os.walk(root):
        for name in names:
            yield os.path.join(directory, name)
