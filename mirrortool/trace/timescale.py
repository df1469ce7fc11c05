"""Where a moment is in a picture: time from left to right, without the time in which nothing happens.

Rule: a later moment is never left of an earlier one, and none is outside of the picture.
Rule: where nothing that is drawn happens for a long time, that time is a narrow gap; all other time has one scale.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise

from mirrortool.trace.window import merged

_GAP_PIXELS = 12.0
_GAPS_SHARE = 0.25
"""All gaps together have at most this share of the width."""
_GAP_SHARE_LEAST = 0.05
"""A pause that is shorter than this share of the busy time is drawn as it is."""
_TICKS = 7


class TimeScale:
    """From nanoseconds to pixels.

    Attributes:
        gaps: the pauses that were left out: from and to, in nanoseconds.
    """

    def __init__(self, spans: Iterable[tuple[int, int]], start_ns: int, end_ns: int, left: float, right: float) -> None:
        """A scale from `start_ns` to `end_ns`, in which all `spans` lie that are drawn."""
        cut = ((max(start, start_ns), min(end, end_ns)) for start, end in spans)
        busy = list(merged(span for span in cut if span[0] <= span[1])) or [(start_ns, end_ns)]
        least_ns = _GAP_SHARE_LEAST * sum(end - start for start, end in busy)
        pauses = [(end, start) for (_, end), (start, _) in pairwise(busy)]
        self.gaps = [(start, end) for start, end in pauses if end - start > least_ns]
        self._left, self._right = left, right
        first, last = busy[0][0], busy[-1][1]
        gap_pixels = min(_GAP_PIXELS, _GAPS_SHARE * (right - left) / max(1, len(self.gaps)))
        drawn_ns = last - first - sum(end - start for start, end in self.gaps)
        self._per_ns = (right - left - gap_pixels * len(self.gaps)) / max(1, drawn_ns)
        # Where each stretch between two gaps begins: nanoseconds, and pixels.
        self._starts_ns, self._starts = [first], [left]
        self._ends_ns = [*(start for start, _ in self.gaps), last]
        for start, end in self.gaps:
            width = (start - self._starts_ns[-1]) * self._per_ns
            self._starts.append(self._starts[-1] + width + gap_pixels)
            self._starts_ns.append(end)
        self._gap_pixels = gap_pixels

    def x(self, at_ns: int) -> float:
        """Where a moment is; one in a gap or outside of the scale is at its edge."""
        number = max(0, bisect_right(self._starts_ns, at_ns) - 1)
        start_ns, end_ns = self._starts_ns[number], self._ends_ns[number]
        x = self._starts[number] + (min(max(at_ns, start_ns), end_ns) - start_ns) * self._per_ns
        return min(max(x, self._left), self._right)

    def gap_places(self) -> Iterator[tuple[float, float]]:
        """Where the gaps are: left and width."""
        for start, _ in self.gaps:
            yield self.x(start), self._gap_pixels

    def ticks(self) -> tuple[int, list[int]]:
        """The step, and the moments to mark, counted from the begin of the scale: round numbers of nanoseconds."""
        first, step = self._starts_ns[0], self._step_ns()
        found: list[int] = []
        for start_ns, end_ns in zip(self._starts_ns, self._ends_ns, strict=True):
            next_ns = first + -(-(start_ns - first) // step) * step
            found += range(next_ns, end_ns + 1, step)
        return step, [each - first for each in found]

    @property
    def start_ns(self) -> int:
        """The first moment of the scale."""
        return self._starts_ns[0]

    def _step_ns(self) -> int:
        """1, 2 or 5 times a power of ten, so that there are about _TICKS ticks."""
        least = (self._right - self._left) / _TICKS / self._per_ns
        power = 1
        while power * 10 <= least:
            power *= 10
        return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
