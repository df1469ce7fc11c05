"""For all tests of commands."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Those of the test run come back: a command that was stopped leaves its own, as it is about to end."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
