"""Before a sum in the table is replaced: that its segment is no damaged one.

A sum that rotted on its disk would make the state sum of every frame from now on wrong, as that is computed from the
sum that goes and the one that comes.

Rule: a segment counts as checked only after it was found right. Whoever asks for a damaged one hears of it, each time.
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
        """All segments in which these pages of one volume lie are right.

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
