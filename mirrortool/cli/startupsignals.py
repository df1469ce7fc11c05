"""Signals that come before a command that runs until it is stopped has begun: it ends with 0.

    while modules are imported    at once: nothing is open yet
    while it opens what it needs  what is open is closed

Without any of this a service that is stopped just after its start would seem to have failed. A command that ends by
itself is not treated so: a signal means that it did not do its job. Not here: signals once it has begun
(workthread.py), and options that are given by the environment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from mirrortool.cli.services import SERVICES

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Stopped(BaseException):
    """A signal came before the work had begun."""


def is_long_running(arguments: Sequence[str]) -> bool:
    """Whether these are the arguments of a command that runs until it is stopped."""
    options = {argument.partition("=")[0] for argument in arguments[1:]}
    return bool(arguments) and arguments[0] in SERVICES and not options.isdisjoint(SERVICES[arguments[0]].options)


def end_at_once() -> None:
    """From now on a signal ends the process with 0."""
    _handle(lambda: os._exit(0))


def unwind() -> None:
    """From now on a signal raises Stopped in the main thread, until something else handles signals."""
    _handle(_raise_stopped)


def _handle(end: Callable[[], NoReturn]) -> None:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        end()

    for number in _NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)


def _raise_stopped() -> NoReturn:
    raise Stopped
