"""What a test lets a disk do at a call (disk.py), and which calls it means."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.disknodes import SECTOR

BLOCK = SECTOR
DROPPED, UNWRITTEN = object(), object()
CHANGING = (
    *("create", "mkdir", "rmdir", "unlink", "rename", "symlink", "pwrite", "pwritev"),
    *("ftruncate", "punch", "reserve", "zero", "fdatasync", "fsync"),
)
"""Names of the calls that are numbered."""
_STUCK_SECONDS_MAX = 60


class PowerCut(BaseException):
    """Ends everything, as a power cut would; nothing that runs afterwards changes a file."""


class LosingSync(OSError):
    """A sync fails, and what it could not write is gone from what is to be written: a share of it, by default any."""

    def __init__(self, code: int = errno.EIO, share: float | None = None) -> None:
        super().__init__(code, os.strerror(code))
        self.share = share


@dataclass(frozen=True)
class Short:
    """Only some bytes of a write are written, one at least."""

    count: int


@dataclass
class Stuck:
    """A call that waits. The test's thread owns both events; `outcome` is what becomes of the call once released."""

    outcome: object = None
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> object:
        self.reached.set()
        if not self.released.wait(_STUCK_SECONDS_MAX):
            raise AssertionError("a test left a call stuck")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@dataclass(frozen=True)
class Call:
    """A call: `name` as in CHANGING, or open or pread; `path` of the file; the number among all that change something.

    Of one that changes nothing, the number of the last that did.
    """

    number: int
    name: str
    path: str


Fault = Callable[[Call], object]


def no_fault(_call: Call) -> None:
    """All is done as it was asked."""


def nth(number: int, wanted: Callable[[Call], bool], effect: Callable[[], object]) -> Fault:
    """What happens to the k-th of the wanted calls, counted from 1, and to no other."""
    seen = 0

    def fault(call: Call) -> object:
        nonlocal seen
        if not wanted(call):
            return None
        seen += 1
        return effect() if seen == number else None

    return fault


def fail_at(number: int, code: int, wanted: Callable[[Call], bool]) -> Fault:
    """Let the k-th of the wanted calls fail with an errno: EIO, ENOSPC, EDQUOT, EMFILE (of `reads`)..."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return nth(number, wanted, fail)


def lose_at(number: int, wanted: Callable[[Call], bool], code: int = errno.EIO, share: float | None = None) -> Fault:
    """Let the k-th of the wanted syncs fail, and drop what it could not write."""

    def lose() -> None:
        raise LosingSync(code, share)

    return nth(number, wanted, lose)


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
