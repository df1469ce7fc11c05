"""Finds damaged segments of the table of sums, before a sum in them is replaced.

A sum that rotted on its disk would make the state sum of every frame from now on wrong, as that is computed from the
old sum and the new one.

Rule: a segment counts as checked only after it was found right. A damaged one raises an error each time it is asked
for.
Used under its owner's lock. Not here: what is done with a damaged table (recovery.py makes it anew).
"""

from __future__ import annotations

from mirrortool.address import pages_per_segment, split_at
from mirrortool.errors import CorruptJournalError
from mirrortool.store.pagesums import PageSums


class SegmentCheck:
    """Which segments of a table were found right; each is read once."""

    def __init__(self, table: PageSums) -> None:
        self._table = table
        self._segment_pages = pages_per_segment(table.page_size)
        self._right: set[int] = set()

    def require_right(self, page: int, count: int) -> None:
        """Check all segments in which these pages of one volume lie.

        Raises:
            CorruptJournalError: one is damaged.
            HostError: one could not be read.
        """
        for first, _ in split_at(page, count, self._segment_pages):
            segment = first // self._segment_pages
            if segment in self._right:
                continue
            if not self._table.is_segment_right(first):
                raise CorruptJournalError(
                    "the recorder's table of sums is damaged",
                    where=self._table.path_of(first),
                    remedy="run record again: it makes the table anew from the journal",
                )
            self._right.add(segment)
