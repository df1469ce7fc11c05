"""The one place that reads time or sleeps, so that tests can replace it whole.

Not here: formatting and parsing of times, which read no clock.
"""

from __future__ import annotations

import time


def now_ns() -> int:
    """Nanoseconds since 1970-01-01 UTC; may step backwards when the host's clock is set."""
    return time.time_ns()


def monotonic() -> float:
    """Seconds from an arbitrary start; never steps."""
    return time.monotonic()


def monotonic_ns() -> int:
    """Nanoseconds from an arbitrary start; never steps, and is the same for all threads."""
    return time.monotonic_ns()


def processor_seconds() -> float:
    """Seconds that this thread was on a processor, from an arbitrary start; what it waits is not in it."""
    return time.thread_time()


def sleep(seconds: float) -> None:
    """Do nothing for that long."""
    time.sleep(seconds)


def utc_offset_seconds(at_seconds: float) -> int:
    """Seconds east of Greenwich of this host's zone at that instant."""
    return time.localtime(at_seconds).tm_gmtoff


def local_seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> float:
    """Seconds since 1970 of a wall-clock time in this host's zone."""
    return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
