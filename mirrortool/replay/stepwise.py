"""Threads of which only one runs at a time, in an order that is the same each time, until all of them have stopped.

It is a ThreadSeam (threads.py) for a person who looks at a group step by step: nothing depends on how fast a thread is,
and between two steps no thread changes anything.

Rule: a thread runs until it stops at a gate that is closed, or ends. Then the one runs that could continue first.
Rule: the owner, which is the thread that made this, runs while all others have stopped, and stops in `run` only. It
opens gates, but waits at none.
Bound: the threads that were started; each has one turn waiting, at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from mirrortool.replay.threads import Gate, Handle, Lock, RawGate


class SteppedThreads:
    """Real threads that hand the turn to each other. Nobody needs a lock for what they share."""

    def __init__(self) -> None:
        # The turns of the threads that can continue, the next one first. Owner: whichever thread runs.
        self._ready: deque[RawGate] = deque()
        self._owner = RawGate()

    def lock(self) -> Lock:
        """A lock of the interpreter, which is always free: no thread stops while it holds one."""
        return threading.Lock()

    def gate(self) -> Gate:
        """A gate, closed."""
        return _SteppedGate(self)

    def spawn(self, name: str, function: Callable[[], None]) -> Handle:
        """A daemon, which begins in `run`; the newest first, so that task 0 of a group parks last and is woken first.

        Raises:
            RuntimeError: the system has no more threads.
        """
        turn = RawGate()

        def run() -> None:
            turn.wait()
            try:
                function()
            finally:
                self.hand_over()

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._ready.appendleft(turn)
        return _Stepped(self, thread)

    def run(self) -> None:
        """Let all threads run that can, one after another, until each has stopped or ended. The owner only."""
        if self._ready:
            self.hand_over()
            self._owner.wait()

    def hand_over(self) -> None:
        """Give the turn to the next thread, or to the owner if none can continue; the caller then stops or ends."""
        (self._ready.popleft() if self._ready else self._owner).open()

    def make_ready(self, turn: RawGate) -> None:
        """A thread that has stopped can continue, after those that could before."""
        self._ready.append(turn)


class _SteppedGate:
    """The turn of the thread that waits here, or a mark that it need not wait."""

    def __init__(self, threads: SteppedThreads) -> None:
        self._threads = threads
        self._turn = RawGate()
        self._is_open = self._has_waiter = False

    def open(self) -> None:
        if self._has_waiter:
            self._has_waiter = False
            self._threads.make_ready(self._turn)
        else:
            self._is_open = True

    def wait(self) -> None:
        if self._is_open:
            self._is_open = False
            return
        self._has_waiter = True
        self._threads.hand_over()
        self._turn.wait()


class _Stepped:
    def __init__(self, threads: SteppedThreads, thread: threading.Thread) -> None:
        self._threads, self._thread = threads, thread

    def join(self) -> None:
        self._threads.run()
        self._thread.join()
