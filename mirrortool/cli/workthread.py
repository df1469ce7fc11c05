"""Runs a long piece of work in a thread, while the main thread waits for signals and feeds the display.

The first signal that stops the program (signals.py) asks the work to stop, and the program ends with 128 and the
signal's number when it has; the second ends the process at once, also while it prints the result. Nothing
durable depends on a clean stop. SIGUSR1 asks how far the work is, any number of times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from mirrortool.cli.signals import QUESTION, Signals
from mirrortool.cli.text import printable, tell
from mirrortool.errors import MirrortoolError

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

    def __init__(self, work: Callable[[], Result], cancel: Callable[[], None], inspect: Callable[[], None]) -> None:
        """Do `work`.

        Args:
            cancel: stops it soon; called in the main thread, as is the next.
            inspect: prints how far the work is, on standard error and also when quiet, because SIGUSR1 came.
        """
        self._work = work
        self._cancel = cancel
        self._inspect = inspect
        self._signals = Signals()
        self._is_done = False  # set by the work's thread, which wakes the main one then
        self._result: list[Result] = []
        self._error: BaseException | None = None

    @property
    def signal_number(self) -> int:
        """Of the signal that asked the work to stop; 0 if none did."""
        return self._signals.number

    def run(self, tick: Callable[[], None]) -> Result:
        """Do the work; call `tick` four times a second, in this thread, and once at the end.

        Signals are handled as before afterwards, unless one came: then the program is about to end.

        Raises:
            BaseException: whatever the work raised.
        """
        thread = threading.Thread(target=self._do, name="mirrortool-work", daemon=True)
        with self._signals:
            thread.start()
            try:
                self._attend(tick)
            except BaseException:
                self._cancel()  # what the work uses is about to be closed
                raise
            finally:
                thread.join()
        if self._error:
            raise self._error
        return self._result[0]

    def _attend(self, tick: Callable[[], None]) -> None:
        """Until the work is done."""
        while not self._is_done:
            number = self._signals.wait(TICK_SECONDS)
            if number == QUESTION:
                self._answer()
            elif number:
                self._cancel()
                tell("\nmirrortool: stopping; signal once more to stop at once")
            elif not self._is_done:
                tick()
        tick()

    def _answer(self) -> None:
        try:
            self._inspect()
        except (MirrortoolError, OSError) as error:  # whoever asks must not end the work
            tell(f"mirrortool: {printable(str(error))}")

    def _do(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # raised again in the main thread
            self._error = error
        finally:
            self._is_done = True
            self._signals.wake()
