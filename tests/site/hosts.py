"""Model hosts: each has a disk that loses its power alone, clocks of its own, and another boot id after each boot.

The code under test runs on them unmodified; `running_on` puts the model in place of what it asks of its host: threads
and queues, clocks, process ids, random numbers, file times and inode numbers, and events of the file system.
"""

from __future__ import annotations

import os
import random
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mirrortool import clock, files, hostinfo, openfile, verify
from mirrortool.journal import tail
from mirrortool.mirror import volumeregistry
from tests.fakes.disk import Call, Disk, DiskOs, _Fcntl, path_of
from tests.site.strands import SECOND, KilledError, Pool, Process, Queues, Scheduler, Threading

BEGAN_NS = 1_700_000_000 * SECOND


class Host:
    """A host.

    Attributes:
        ahead_ns: how far its clock is ahead of the model's time.
        processes: that run.
        is_up: it has power.
        calls_left: file and link calls of its processes until it loses its power; None for no loss.
        is_full: no call that needs room finds any.
        faults: with which chance a call that changes a file fails.
        others: hosts.
        has_failed: some call failed, since the site was calm.
    """

    def __init__(self, name: str, path: str, disk: Disk) -> None:
        self.name, self.path, self.disk = name, path, disk
        self.boots = 1
        self.is_up = True
        self.booted_ns = 0
        self.ahead_ns = 0
        self.calls_left: int | None = None
        self.is_full = self.has_failed = False
        self.others: list[Host] = []
        self.faults = 0.0
        self.processes: list[Process] = []
        os.mkdir(f"{path}/state")

    @property
    def boot_id(self) -> str:
        return f"boot-{self.name}-{self.boots:04}"

    def below(self, name: str) -> str:
        return f"{self.path}/{name}"

    def find(self, name: str) -> Process | None:
        return next((each for each in self.processes if each.name == name), None)


class SiteOs(DiskOs):
    """`os` for the processes of the hosts.

    `on_call` is asked before each call; without a process, as in a test's own look at files, nothing is in the way.
    """

    def __init__(
        self, scheduler: Scheduler, hosts: Sequence[str], on_call: Callable[[Call], object], seed: int
    ) -> None:
        super().__init__(self._ask_site, hosts=hosts, seed=seed, lock=nullcontext())
        self._scheduler, self._on_call = scheduler, on_call
        self._inodes: dict[tuple[int, int], int] = {}
        self._times: dict[tuple[int, int], tuple[int, int]] = {}
        self._watches: list[tuple[str, Any, Process | None]] = []

    def _process(self) -> Process | None:
        return self._scheduler.current.process

    def _ask_site(self, call: Call) -> object:
        return self._on_call(call) if self._process() else None

    def _ask_reads(self, name: str, descriptor: int = -1, path: str | None = None) -> None:
        if self._process():
            self._on_call(Call(0, name, path or ""))

    def write(self, descriptor: int, data: bytes) -> int:
        process = self._process()
        return len(data) if process is not None and process.is_dead else os.write(descriptor, data)

    def setxattr(self, path: Any, name: Any, value: bytes) -> None:
        self._refuse_dead()
        os.setxattr(path, name, value)

    def removexattr(self, path: Any, name: Any) -> None:
        self._refuse_dead()
        os.removexattr(path, name)

    def _refuse_dead(self) -> None:
        process = self._process()
        if process is not None and process.is_dead:
            raise KilledError

    # Times and numbers that files have, and those that watch them.

    @contextmanager
    def _changing(self, name: str, descriptor: int = -1, path: str | None = None) -> Iterator[object]:
        with super()._changing(name, descriptor, path) as outcome:
            yield outcome
        if name in ("fdatasync", "fsync", "reserve"):
            return
        if descriptor >= 0:
            self._changed(os.fstat(descriptor))
        else:
            assert path is not None
            self._changed(os.stat(os.path.dirname(path)))
            if os.path.lexists(path):
                self._changed(os.lstat(path))
        if self._watches and name not in ("unlink", "rmdir"):
            self._tell(os.path.dirname(path or path_of(descriptor)))

    def _changed(self, found: os.stat_result) -> None:
        now = self._wall()
        self._times[found.st_dev, found.st_ino] = now, now

    def _wall(self) -> int:
        process = self._process()
        return BEGAN_NS + self._scheduler.now + (process.host.ahead_ns if process else 0)

    def _seen(self, found: os.stat_result) -> os.stat_result:
        key = found.st_dev, found.st_ino
        inode = self._inodes.setdefault(key, 100_000 + len(self._inodes))
        modified, changed = self._times.get(key, (BEGAN_NS, BEGAN_NS))
        return SimpleNamespace(  # type: ignore[return-value]
            st_mode=found.st_mode, st_ino=inode, st_dev=64, st_nlink=found.st_nlink, st_uid=found.st_uid,
            st_gid=found.st_gid, st_size=found.st_size, st_blocks=found.st_blocks, st_rdev=0,
            st_mtime_ns=modified, st_ctime_ns=changed,
        )  # fmt: skip

    def watch(self, directory: str, handler: Any) -> Any:
        os.stat(directory)
        watched = (os.path.realpath(directory), handler, self._process())
        self._watches.append(watched)
        return watched

    def unwatch(self, watched: Any) -> None:
        if watched in self._watches:
            self._watches.remove(watched)

    def _tell(self, directory: str) -> None:
        for where, handler, process in self._watches:
            if where == directory and not (process and process.is_dead):
                handler.dispatch(None)


class Observer:
    """What tail.py starts to be told of events."""

    def __init__(self, system: SiteOs) -> None:
        self._system = system

    def schedule(self, handler: Any, path: str, event_filter: object) -> Any:
        return self._system.watch(path, handler)

    def unschedule(self, watched: Any) -> None:
        self._system.unwatch(watched)

    def stop(self) -> None:
        pass

    def join(self) -> None:
        pass


class _Random:
    """`secrets` and `random` in the code under test."""

    def __init__(self, chance: random.Random) -> None:
        self.uniform = chance.uniform
        self.token_bytes = chance.randbytes
        self.token_hex = lambda count: chance.randbytes(count).hex()


class Ids:
    """Process ids of the hosts: who lives."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def process(self) -> Process | None:
        return self._scheduler.current.process

    def process_id(self) -> int:
        process = self.process()
        return process.pid if process else 1

    def start_of_process(self, pid: int) -> int | None:
        process = self.process()
        if process is None:
            return None
        return next((1000 + each.pid for each in process.host.processes if each.pid == pid), None)

    def boot_id(self) -> str:
        process = self.process()
        return str(process.host.boot_id) if process else "boot-of-the-test"

    def pid_namespace(self) -> str:
        process = self.process()
        return f"pid:[{process.host.name}]" if process else "pid:[test]"


def modules() -> list[ModuleType]:
    """Of the package, those that are loaded."""
    return [module for name, module in sorted(sys.modules.items()) if name.startswith("mirrortool.")]


@contextmanager
def running_on(scheduler: Scheduler, system: SiteOs, chance: random.Random, root: str) -> Iterator[None]:
    """Inside, the package runs on the model."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (files, openfile):
            patch.setattr(module, "os", system)
        patch.setattr(openfile, "fcntl", _Fcntl(system))
        patch.setattr(openfile, "_libc_fallocate", system.fallocate)
        _patch_modules(patch, scheduler, chance)
        _patch_clock(patch, scheduler)
        ids = Ids(scheduler)
        for name in ("process_id", "start_of_process", "boot_id", "pid_namespace"):
            patch.setattr(hostinfo, name, getattr(ids, name))
        patch.setattr(hostinfo, "refuse_used", lambda _: None)
        patch.setattr(hostinfo, "devices_below", lambda _: set())
        patch.setattr(files, "birth_ns", lambda _: 0)
        patch.setattr(files, "free_bytes", lambda _: 1 << 40)
        patch.setattr(tail, "_started_observer", lambda: Observer(system))

        def place() -> str:
            process = scheduler.current.process
            return process.host.below("state") if process else f"{root}/state"

        patch.setattr(volumeregistry, "place", place)
        _patch_files(patch, scheduler)
        yield


def _patch_modules(patch: pytest.MonkeyPatch, scheduler: Scheduler, chance: random.Random) -> None:
    patch.setattr(verify, "ThreadPoolExecutor", lambda **_: Pool(scheduler))
    fakes = {"threading": Threading(scheduler), "queue": Queues(scheduler)}
    fakes |= {"secrets": _Random(chance), "random": _Random(chance)}  # type: ignore[dict-item]
    for module in modules():
        for name, fake in fakes.items():
            if getattr(module, name, None) is sys.modules.get(name) is not None:
                patch.setattr(module, name, fake)


def _patch_clock(patch: pytest.MonkeyPatch, scheduler: Scheduler) -> None:
    def now_ns() -> int:
        process = scheduler.current.process
        return BEGAN_NS + scheduler.now + (process.host.ahead_ns if process else 0)

    def monotonic_ns() -> int:
        process = scheduler.current.process
        return scheduler.now - (process.host.booted_ns if process else 0) + 5 * SECOND

    patch.setattr(clock, "now_ns", now_ns)
    patch.setattr(clock, "monotonic", lambda: monotonic_ns() / SECOND)
    patch.setattr(clock, "monotonic_ns", monotonic_ns)
    patch.setattr(clock, "processor_seconds", lambda: scheduler.now / SECOND)
    patch.setattr(clock, "sleep", scheduler.sleep)


def _patch_files(patch: pytest.MonkeyPatch, scheduler: Scheduler) -> None:
    """A process knows its open files, to close them if it is killed."""
    real = openfile.File.__init__

    def opened(file: openfile.File, path: str, descriptor: int) -> None:
        real(file, path, descriptor)
        process = scheduler.current.process
        if process:
            process.files.append(weakref.ref(file))

    patch.setattr(openfile.File, "__init__", opened)
