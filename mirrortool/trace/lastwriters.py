"""Which unit wrote each page last, as runs of pages that share no page.

Rule: a run of any length costs what it overlaps, so that no footprint is ever counted page by page.
Cost: a search among all runs, and moving at most BUCKET_RUNS of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

BUCKET_RUNS = 512

Writer = TypeVar("Writer")


class LastWriters(Generic[Writer]):
    """The last writer of each page that has one. For one thread."""

    def __init__(self) -> None:
        self._runs: dict[int, tuple[int, Writer]] = {}  # by the first page: one above the last, and the writer
        # The first pages in ascending order, in buckets, because inserting into one long list would move all of it.
        # Bucket i has those from _lows[i] on and below _lows[i + 1]; only a single bucket may be empty.
        self._buckets: list[list[int]] = [[]]
        self._lows = [0]

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def replace(self, first: int, end: int, writer: Writer, met: dict[Writer, int]) -> None:
        """Make `writer` the last one of the pages `first … end-1`; those before it go to `met`, with a common page."""
        runs = self._runs
        before = self._start_before(first)
        if before is not None and (stop := runs[before][0]) > first:
            other = runs[before][1]
            met.setdefault(other, first)
            runs[before] = first, other
            if stop > end:
                self._insert(end, stop, other)
        for start in self._remove(first, end):
            stop, other = runs.pop(start)
            met.setdefault(other, start)
            if stop > end:
                self._insert(end, stop, other)
        self._insert(first, end, writer)

    def _start_before(self, page: int) -> int | None:
        """The first page of the run that begins before `page`, and nearest to it."""
        number = bisect_left(self._lows, page) - 1
        if number < 0:
            return None
        index = bisect_left(self._buckets[number], page)
        if index:
            return self._buckets[number][index - 1]
        return self._buckets[number - 1][-1] if number else None

    def _remove(self, first: int, end: int) -> list[int]:
        """Take the runs that begin at `first … end-1` out of the buckets."""
        found: list[int] = []
        number = bisect_right(self._lows, first) - 1
        while number < len(self._buckets) and self._lows[number] < end:
            bucket = self._buckets[number]
            low, high = bisect_left(bucket, first), bisect_left(bucket, end)
            found += bucket[low:high]
            del bucket[low:high]
            if bucket or len(self._buckets) == 1:
                number += 1
            else:
                del self._buckets[number], self._lows[number]
                self._lows[0] = 0
        return found

    def _insert(self, first: int, end: int, writer: Writer) -> None:
        self._runs[first] = end, writer
        number = bisect_right(self._lows, first) - 1
        bucket = self._buckets[number]
        bucket.insert(bisect_left(bucket, first), first)
        if len(bucket) > BUCKET_RUNS:
            half = len(bucket) // 2
            self._buckets.insert(number + 1, bucket[half:])
            self._lows.insert(number + 1, bucket[half])
            del bucket[half:]
