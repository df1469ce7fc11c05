"""Whether a journal file is missing in the middle: each file begins where the one before it ends.

Of each file only the last frame's header is read, from its end, and once. Not here: damage inside of older files
(journal/audit.py).
"""

from __future__ import annotations

from itertools import pairwise

from mirrortool.errors import HostError, JournalError, PrunedJournalError
from mirrortool.journal.directory import Journal
from mirrortool.journal.journalfile import JournalFile
from mirrortool.journal.judgement import Judge
from mirrortool.lsn import Lsn


class Gaps:
    """Looks for missing files of one journal, again and again."""

    def __init__(self) -> None:
        self._known: set[tuple[int, int]] = set()  # first LSNs of two files that follow each other

    def find(self, journal: Journal) -> JournalError | None:
        """The error for the first file that is missing between two others."""
        starts = journal.file_starts()
        for first_lsn, following in pairwise(starts):
            if (first_lsn, following) in self._known:
                continue
            end_lsn = _end_of(journal, first_lsn)
            if end_lsn is None:
                continue
            if end_lsn + 1 < following:
                missing = Judge(journal).missing(Lsn(end_lsn + 1))
                return None if isinstance(missing, PrunedJournalError) else missing  # such as since it was listed
            self._known.add((first_lsn, following))
        return None


def _end_of(journal: Journal, first_lsn: Lsn) -> int | None:
    """The last LSN of a file; None if it went just now, or that cannot be told from its end alone."""
    try:
        file = JournalFile(journal, first_lsn, headers_only=True)
    except HostError:
        return None
    try:
        header = file.last_frame()
    except HostError:
        return None
    finally:
        file.close()
    return header.position.lsn if header else None
