"""An operating system that fails, lies or loses power when a test says so.

Takes the place of the module `os` in files.py and openfile.py, below every method of `File`, so that every write comes
through here, whatever way it goes. Each changing call is numbered and handed to a `fault` before it is done; the fault
may raise OSError or PowerCut, return other buffers for a write, or DROPPED.

`Disk` remembers what of each file is durable; `cut_power` then leaves of each block either the newest bytes or the
durable ones, as a test's random numbers say. Renames and directories count as durable at once, and the size with the
newest truncate, which is weaker than reality only for files that mirrortool never reads before it has synced them.

What lies below `elsewhere` is another machine's: there no call is numbered or fails, and the power stays on.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mirrortool import files, openfile

DROPPED = object()
BLOCK = 512


class PowerCut(BaseException):
    """Ends everything, as a power cut would; nothing that runs afterwards changes a file."""


@dataclass(frozen=True)
class Call:
    """A call that changes something: `name` as in os, `path` of the file, the number among all such calls."""

    number: int
    name: str
    path: str


Fault = Callable[[Call], object]


class FaultyOs:
    """`os`, with faults in the calls that change files."""

    def __init__(self, fault: Fault, elsewhere: str | None = None) -> None:
        self._fault = fault
        # Makes one call at a time; a fault may make calls of its own, in the thread that it is in.
        self._lock = threading.RLock()
        self._count = 0
        self.is_off = False
        self.calls: list[Call] = []
        self.disk = Disk(elsewhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        return self.pwritev(descriptor, [data], offset, name="pwrite")

    def pwritev(self, descriptor: int, buffers: Sequence[Any], offset: int, name: str = "pwritev") -> int:
        changed = self._call(name, descriptor)
        if changed is DROPPED:
            return sum(map(len, buffers))
        self.disk.note(descriptor)
        return os.pwritev(descriptor, changed(buffers) if callable(changed) else buffers, offset)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._call("ftruncate", descriptor)
        self.disk.note(descriptor)
        os.ftruncate(descriptor, size)

    def fdatasync(self, descriptor: int) -> None:
        self._call("fdatasync", descriptor)
        self.disk.sync(descriptor)

    def fsync(self, descriptor: int) -> None:
        self._call("fsync", descriptor)

    def rename(self, source: str, target: str) -> None:
        self._call("rename", path=target)
        self.disk.rename(source, target)
        os.rename(source, target)

    def fallocate(self, descriptor: int, mode: int, offset: int, length: int) -> int:
        try:
            self._call("punch" if mode & 2 else "reserve", descriptor)
        except OSError as error:
            return error.errno or errno.EIO
        if mode & 2:
            self.disk.note(descriptor)
        return _fallocate(descriptor, mode, offset, length)

    def _call(self, name: str, descriptor: int = -1, path: str | None = None) -> object:
        path = path or path_of(descriptor)
        if self.disk.is_elsewhere(path):
            return None
        with self._lock:
            if self.is_off:
                raise PowerCut
            self._count += 1
            call = Call(self._count, name, path)
            self.calls.append(call)
            try:
                return self._fault(call)
            except PowerCut:
                self.is_off = True
                raise


@dataclass
class Disk:
    """The durable bytes of files that changed since; by path."""

    elsewhere: str | None = None
    durable: dict[str, bytes] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)

    def is_elsewhere(self, path: str) -> bool:
        return self.elsewhere is not None and path.startswith(self.elsewhere)

    def note(self, descriptor: int) -> None:
        path = path_of(descriptor)
        with self._lock:
            if path not in self.durable and not self.is_elsewhere(path):
                self.durable[path] = Path(path).read_bytes()

    def sync(self, descriptor: int) -> None:
        with self._lock:
            self.durable.pop(path_of(descriptor), None)

    def rename(self, source: str, target: str) -> None:
        with self._lock:
            self.durable.pop(target, None)
            if (left := self.durable.pop(source, None)) is not None:
                self.durable[target] = left

    def keep(self, path: str) -> None:
        """What is below this path is on another machine, which does not lose its power."""
        with self._lock:
            self.durable = {name: old for name, old in self.durable.items() if not name.startswith(path)}

    def cut_power(self, chance: random.Random, *, lose_size: bool = False) -> None:
        """Of what was not durable, any blocks are lost; with `lose_size` also any of what was appended."""
        for path, old in self.durable.items():
            if not os.path.exists(path):
                continue
            new = Path(path).read_bytes()
            if lose_size and len(new) > len(old) and chance.random() < 0.5:
                new = new[: chance.randrange(len(old), len(new) + 1)]
            old = old.ljust(len(new), b"\0")
            keep = chance.choice([0.0, 0.5, 0.9, 1.0])
            kept = [(new if chance.random() < keep else old)[at : at + BLOCK] for at in range(0, len(new), BLOCK)]
            Path(path).write_bytes(b"".join(kept)[: len(new)])
        self.durable.clear()


def path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


@contextmanager
def faulty(fault: Fault, elsewhere: str | None = None) -> Iterator[FaultyOs]:
    """Let the whole tool run on an operating system with this fault, which what is below `elsewhere` does not have."""
    system = FaultyOs(fault, elsewhere)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", system)
        patch.setattr(openfile, "os", system)
        patch.setattr(openfile, "_libc_fallocate", system.fallocate)
        yield system


_fallocate = openfile._libc_fallocate


def fail_at(number: int, code: int, wanted: Callable[[Call], bool]) -> Fault:
    """Let the k-th of the wanted calls, counted from 1, fail with an errno, and no other."""
    seen = 0

    def fault(call: Call) -> None:
        nonlocal seen
        if wanted(call):
            seen += 1
            if seen == number:
                raise OSError(code, os.strerror(code))

    return fault


def cut_at(number: int) -> Fault:
    """Cut the power before the changing call with this number."""

    def fault(call: Call) -> None:
        if call.number >= number:
            raise PowerCut

    return fault


class FullDisk:
    """ENOSPC below a path while `is_full`."""

    def __init__(self, path: Path) -> None:
        self._path, self.is_full = str(path), False

    def __call__(self, call: Call) -> None:
        if self.is_full and call.path.startswith(self._path) and call.path.endswith(".mj") and "write" in call.name:
            raise OSError(errno.ENOSPC, "full")


def is_journal(call: Call) -> bool:
    return call.path.endswith(".mj")


def is_volume(call: Call) -> bool:
    return call.path.endswith(".vol")


def is_sums(call: Call) -> bool:
    return "/sums/" in call.path


def is_checkpoint(call: Call) -> bool:
    return "recorder.json" in call.path
