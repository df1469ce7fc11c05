"""Signals: those that stop the program, as something that the main thread waits for, or as an exception in it; and
the one that asks what it is doing.

    SIGINT, SIGTERM     stop it
    SIGHUP, SIGQUIT     stop it as well, unless it was started with them ignored, as by nohup(1)
    SIGUSR1             asks: an answer is printed, and it continues
    SIGUSR2             nothing: it must not kill what somebody asks by the wrong number (__main__.py)

A handler runs between any two steps of the main thread, which may hold a lock there: that of an Event that it waits
for, or one that statistics are under. What a handler did with these could wait for ever. So while work runs in a
thread, it only puts the signal's number where the main thread finds it, into a queue that may be put into from
anywhere.

Rule: the second that stops ends the process at once. But SIGHUP counts once, as a terminal that is closed sends
several.
Rule: SIGUSR1 never ends the process. It has a handler from __main__.run on, and is ignored when the interpreter ends.
Not here: signals before the work has begun (startupsignals.py).
"""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mirrortool.cli.text import printable, tell

QUESTION = signal.SIGUSR1


def stopping() -> tuple[signal.Signals, ...]:
    """The signals that stop the program."""
    asked = [number for number in (signal.SIGHUP, signal.SIGQUIT) if signal.getsignal(number) != signal.SIG_IGN]
    return (signal.SIGINT, signal.SIGTERM, *asked)


@contextmanager
def answering(text: str) -> Iterator[None]:
    """While the main thread does something in which it waits for no signals, SIGUSR1 prints this line."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        tell(f"mirrortool: {printable(text)}")  # lost where it interrupts the printing of another line

    previous = signal.signal(QUESTION, on_signal)
    try:
        yield
    finally:
        signal.signal(QUESTION, previous)


def ignore_questions() -> None:
    """The program is about to end: the interpreter gives up its handlers before it has, and the default kills."""
    for number in (QUESTION, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


class Interruption(KeyboardInterrupt):
    """A signal stops a command that has nothing to stop but itself.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def interrupt() -> None:
    """From now on, unless something else handles them, SIGTERM, SIGHUP and SIGQUIT unwind the main thread as SIGINT
    does: what is open is closed, and what was begun is undone.
    """
    came: set[int] = set()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and came:
            return
        came.add(number)
        raise Interruption(number)

    for number in stopping():
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)


def number_of(error: BaseException) -> int:
    """Of the signal that an exception is for, or was made from, as click makes its own."""
    return next((each.number for each in _origins(error) if isinstance(each, Interruption)), signal.SIGINT)


def was_interrupted(error: BaseException) -> bool:
    """Whether an exception came from what unwound the main thread because of a signal."""
    return any(isinstance(each, KeyboardInterrupt) for each in _origins(error))


def _origins(error: BaseException) -> Iterator[BaseException]:
    """The exception itself, what it was made from, and so on."""
    cause: BaseException | None = error
    while cause:
        yield cause
        cause = cause.__cause__ or cause.__context__


class Signals:
    """Those that stop the program, and SIGUSR1, which come inside the `with` block, for the main thread.

    Handlers are as before afterwards, unless one came that stops the program: then it is about to end.
    Blocks may be nested, as where one piece of work follows another: a signal that stops one stops all, whichever of
    them it met, and one that came before an inner block is the first that is waited for in there.

    Attributes:
        number: of the first that stops the program; 0 until then.
    """

    def __init__(self) -> None:
        self._stopping = stopping()
        self.number = 0
        # Put by handlers and by `wake`, read by the main thread, in order. SimpleQueue.put is reentrant (library
        # reference, queue), so a handler may interrupt it. No bound: a second signal that stops ends the process, and
        # there are as many questions as somebody asked while the main thread was at something else.
        self._came: queue.SimpleQueue[int] = queue.SimpleQueue()

    def __enter__(self) -> Signals:
        self._previous = {number: signal.signal(number, self._on_signal) for number in (*self._stopping, QUESTION)}
        outer = self._outer()
        if outer and outer.number:
            self._on_signal(outer.number, None)
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.number:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        elif outer := self._outer():
            outer.number = self.number

    def wait(self, seconds: float) -> int:
        """The number of the next signal; 0 if none comes within that time, or `wake` is called."""
        try:
            return self._came.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return 0

    def wake(self) -> None:
        """End the current wait, or the next one; from any thread."""
        self._came.put(0)

    def _outer(self) -> Signals | None:
        """Of the block around this one."""
        owner = getattr(self._previous[signal.SIGTERM], "__self__", None)
        return owner if isinstance(owner, Signals) else None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in self._stopping:
            if self.number and number == signal.SIGHUP:
                return
            if self.number:
                os._exit(128 + number)
            self.number = number
        self._came.put(number)
