"""How fast bytes may go: a token bucket, for --bwlimit.

Rule: over any time of T seconds no more than rate × T + BURST_SECONDS × rate bytes are let through, counting each
`consume` as made when it returns. Not here: waiting; the caller does, so that it can be woken.
"""

from __future__ import annotations

from mirrortool import clock
from mirrortool.errors import UsageError
from mirrortool.wording import byte_count

BURST_SECONDS = 0.25


class Pace:
    """Bytes a second; without a limit if that is None. Used by one thread."""

    def __init__(self, bytes_per_second: int | None) -> None:
        """
        Raises:
            UsageError: nothing would ever be sent.
        """
        if bytes_per_second is not None and bytes_per_second < 1:
            raise UsageError(f"at {byte_count(bytes_per_second)} a second nothing would ever be sent")
        self._rate = bytes_per_second
        self._free_at = clock.monotonic()  # when everything taken so far will have been paid for

    def consume(self, length: int) -> float:
        """Seconds to wait before `length` bytes go."""
        if self._rate is None:
            return 0.0
        now = clock.monotonic()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + length / self._rate
        return max(0.0, self._free_at - now)
