"""Waiting for what another thread or process is about to do. No test waits for a time to pass and hopes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
"""No promise: only what never comes takes so long."""
_POLL_SECONDS = 0.005


def wait_until(
    holds: Callable[[], object], seconds: float = PATIENCE_SECONDS, *, told: Callable[[], object] = lambda: None
) -> None:
    """Until something holds.

    Args:
        told: what is known about the one waited for; part of the failure.
    """
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"it never came: {told()}"
        nap(_POLL_SECONDS)


def nap(seconds: float) -> None:
    """Let others get on for a time that means nothing by itself: such as one drawn by chance before a kill."""
    threading.Event().wait(seconds)


def in_thread(act: Callable[[], object]) -> threading.Thread:
    """Begin to do something; `join` it."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def join(*threads: threading.Thread) -> None:
    """Until these have ended."""
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
