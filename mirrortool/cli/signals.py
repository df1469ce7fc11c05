"""SIGINT and SIGTERM as something that the main thread waits for.

A handler runs between any two steps of the main thread, which may hold a lock there: that of an Event that it waits
for, or one that statistics are under. What a handler did with these could wait for ever. So it only puts the signal's
number where the main thread finds it, into a queue that may be put into from anywhere.

Rule: the second SIGINT or SIGTERM ends the process at once. Not here: signals before anything goes on (early.py).
"""

from __future__ import annotations

import os
import queue
import signal
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Those that come inside the `with` block, for the main thread.

    Handlers are as before afterwards, unless one of SIGINT and SIGTERM came: then the program is about to end.

    Attributes:
        number: of the first SIGINT or SIGTERM; 0 until then.
    """

    def __init__(self, *others: signal.Signals) -> None:
        """Take SIGINT, SIGTERM, and others."""
        self._numbers = (*_STOPPING, *others)
        self.number = 0
        # Put by handlers and by `wake`, taken by the main thread, in order. No bound: who sends more ends the process.
        # SimpleQueue.put is reentrant (library reference, queue), so a handler may interrupt it.
        self._came: queue.SimpleQueue[int] = queue.SimpleQueue()

    def __enter__(self) -> Signals:
        self._previous = {number: signal.signal(number, self._on_signal) for number in self._numbers}
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.number:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def wait(self, seconds: float) -> int:
        """The number of the next signal; 0 if none comes within so many seconds, or `wake` is called."""
        try:
            return self._came.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return 0

    def wake(self) -> None:
        """End the wait that is on, or the next one; from any thread."""
        self._came.put(0)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOPPING:
            if self.number:
                os._exit(128 + number)
            self.number = number
        self._came.put(number)
