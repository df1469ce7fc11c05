"""Processes that a test did not start itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable


def kill_all(pids: Iterable[int]) -> int:
    """kill -9 of each that is still there; how many were."""
    killed = 0
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed += 1
    return killed
