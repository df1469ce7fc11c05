"""Runs a long piece of work in a thread, while the main thread waits for signals and feeds the display.

The first SIGINT or SIGTERM asks the work to stop, and the program ends with 130 or 143 when it has; the second ends the
process at once, also while it prints what became of the work. Nothing durable depends on a clean stop.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Generic, TypeVar

from mirrortool.cli.text import tell

Result = TypeVar("Result")

TICK_SECONDS = 0.25
"""The display is fed this often, at most."""


class Interrupted(Exception):
    """A signal ended the command early; `message` says what was left."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = 128 + signal_number


class Runner(Generic[Result]):
    """One piece of work in its own thread."""

    def __init__(
        self, work: Callable[[], Result], cancel: Callable[[], None], inspect: Callable[[], None] | None = None
    ) -> None:
        """Do `work`, which `cancel` stops soon; SIGUSR1 calls `inspect`, in the main thread."""
        self._work = work
        self._cancel = cancel
        self._inspect = inspect
        self._done = threading.Event()
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self.signal_number = 0

    def run(self, tick: Callable[[], None]) -> Result:
        """Do the work; call `tick` four times a second, in this thread, and once at the end.

        Signals are handled as before afterwards, unless one came: then the program is about to end.

        Raises:
            BaseException: whatever the work raised.
        """
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        if self._inspect:
            previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._on_inspect)
        thread = threading.Thread(target=self._do, name="mirrortool-work", daemon=True)
        try:
            thread.start()
            try:
                while not self._done.wait(TICK_SECONDS):
                    tick()
                tick()
            except BaseException:
                self._cancel()  # what the work uses is about to be closed
                raise
            finally:
                thread.join()
        finally:
            if not self.signal_number:
                for number, handler in previous.items():
                    signal.signal(number, handler)
        if self._error:
            raise self._error
        return self._result[0]

    def _do(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # raised again in the main thread
            self._error = error
        finally:
            self._done.set()

    def _on_inspect(self, _number: int, _frame: FrameType | None) -> None:
        if self._inspect:
            self._inspect()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number:
            os._exit(128 + number)
        self.signal_number = number
        self._cancel()
        tell("\nmirrortool: stopping; once more to stop at once")
