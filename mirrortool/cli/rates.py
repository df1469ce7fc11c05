"""How fast counters grow, over the last few seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from mirrortool import clock

SPAN_SECONDS = 5.0
"""Long enough to even out a pause of the write-back, short enough to show soon that a client has stopped."""


class Rates:
    """Rates of counters that only grow, such as statistics; each by a key of the caller's choice.

    Bound: for each key the readings of the last SPAN_SECONDS, about twenty for a display.
    """

    def __init__(self) -> None:
        self._readings: dict[Hashable, deque[tuple[float, Sequence[int]]]] = {}

    def per_second(self, key: Hashable, counters: Sequence[int]) -> list[float]:
        """What each counter grew by in a second, over the last SPAN_SECONDS or since the key's first reading.

        A key has the same counters in the same order each time. After the first reading every rate is 0.
        """
        now = clock.monotonic()
        readings = self._readings.setdefault(key, deque())
        readings.append((now, tuple(counters)))
        while len(readings) > 1 and readings[1][0] <= now - SPAN_SECONDS:
            readings.popleft()
        began, before = readings[0]
        elapsed = now - began
        return [(new - old) / elapsed if elapsed else 0.0 for new, old in zip(counters, before, strict=True)]
