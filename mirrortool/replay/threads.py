"""The interface through which the replay engine starts, locks and wakes threads, so that tests can put in others.

The engine makes its locks, gates and threads here and nowhere else. So a test hands in a scheduler (tests/fakes) that
runs the engine unmodified, one thread at a time, and tries the interleavings one by one. `THREADS` is the real
thing, and adds no cost: its lock is the interpreter's, and a gate's methods are those of a raw lock.

Rule: data that two threads touch is touched under a lock, or handed over through a gate. Nothing relies on the
interpreter's own lock to make a statement atomic.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Lock = AbstractContextManager[object]


class Gate(Protocol):
    """Stops one thread until another lets it pass, once. Latched: opened first, it does not stop the thread."""

    def open(self) -> object:
        """Let the owner pass; once for each time that it waits."""

    def wait(self) -> object:
        """Stop until the gate is open, and close it again. Only its owner does."""


class Handle(Protocol):
    """A thread that was started."""

    def join(self) -> None:
        """Block until its function has returned."""


class ThreadSeam(Protocol):
    """Makes the locks, gates and threads of a group."""

    def lock(self) -> Lock:
        """A mutual exclusion, not re-entrant, for `with`."""

    def gate(self) -> Gate:
        """A gate, closed."""

    def spawn(self, name: str, function: Callable[[], None]) -> Handle:
        """Run a function in a thread of its own."""


class RawGate:
    """A gate of one lock: held while the gate is closed. No Python runs between the caller and the lock."""

    __slots__ = ("open", "wait")

    def __init__(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        self.open: Callable[[], object] = lock.release
        self.wait: Callable[[], object] = lock.acquire


class Threads:
    """Real threads."""

    def lock(self) -> Lock:
        """A lock of the interpreter."""
        return threading.Lock()

    def gate(self) -> Gate:
        """A raw lock, acquired."""
        return RawGate()

    def spawn(self, name: str, function: Callable[[], None]) -> Handle:
        """A daemon: an engine that is never closed, because its program died, does not keep the process alive."""
        thread = threading.Thread(target=function, name=name, daemon=True)
        thread.start()
        return _Joinable(thread)


class _Joinable:
    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def join(self) -> None:
        self._thread.join()


THREADS = Threads()
