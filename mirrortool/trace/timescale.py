"""Where a moment is in a picture: time from left to right, without the time in which nothing happens.

Rule: a later moment is never left of an earlier one, and none is outside of the picture.
Rule: a pause in which nothing that is drawn happens is a narrow gap, if it would be wider; all other time has one
scale.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

_GAP_PIXELS = 12.0
_GAPS_SHARE = 0.25
"""All gaps together have at most this share of the width."""
_GAP_FACTOR_LEAST = 1.5
"""A pause that would not be wider than this number of gaps is drawn as it is."""
_TICKS = 7

Span = tuple[int, int]
"""From when to when, in nanoseconds."""


def merged(spans: Iterable[Span]) -> Iterator[Span]:
    """The spans, ascending; those that meet as one."""
    current: Span | None = None
    for start, end in sorted(spans):
        if current and start <= current[1]:
            current = current[0], max(current[1], end)
            continue
        if current:
            yield current
        current = start, end
    if current:
        yield current


def find_gaps(busy: Sequence[Span], width: float) -> tuple[list[Span], float, float]:
    """The pauses to leave out, ascending, the pixels of each, and those of a nanosecond of all other time.

    The longest pauses first: each that is left out makes all else wider, the other pauses too.

    Args:
        busy: when something happens; at least one, ascending and apart.
    """
    drawn_ns = busy[-1][1] - busy[0][0]
    gaps: list[Span] = []
    gap_pixels, per_ns = 0.0, width / max(1, drawn_ns)
    pauses = [(end, start) for (_, end), (start, _) in pairwise(busy)]
    for start, end in sorted(pauses, key=lambda pause: pause[0] - pause[1]):
        pixels = min(_GAP_PIXELS, _GAPS_SHARE * width / (len(gaps) + 1))
        if (end - start) * per_ns <= _GAP_FACTOR_LEAST * pixels:
            break
        gaps.append((start, end))
        gap_pixels, drawn_ns = pixels, drawn_ns - (end - start)
        per_ns = (width - gap_pixels * len(gaps)) / max(1, drawn_ns)
    return sorted(gaps), gap_pixels, per_ns


class TimeScale:
    """From nanoseconds to pixels.

    Attributes:
        gaps: the pauses that were left out: from and to, in nanoseconds.
    """

    def __init__(self, spans: Iterable[Span], start_ns: int, end_ns: int, left: float, right: float) -> None:
        """A scale from `start_ns` to `end_ns`, in which all `spans` lie that are drawn."""
        cut = ((max(start, start_ns), min(end, end_ns)) for start, end in spans)
        busy = list(merged(span for span in cut if span[0] <= span[1])) or [(start_ns, end_ns)]
        self.gaps, gap_pixels, self._per_ns = find_gaps(busy, right - left)
        self._left, self._right = left, right
        first, last = busy[0][0], busy[-1][1]
        # Where the time between two gaps begins: nanoseconds, and pixels.
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
