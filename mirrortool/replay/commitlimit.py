"""Reads ahead for complete commits, and tells the replay the last commit up to which it may write.

Reads headers only, and makes nothing durable: the replay reads the same frames again, and checks them. Used by the
thread that reads ahead. Bound: one reader; of what it saw, only the newest commit is kept.
"""

from __future__ import annotations

from mirrortool import clock
from mirrortool.errors import TornJournalError
from mirrortool.journal.codec import FrameHeader
from mirrortool.journal.commits import is_past
from mirrortool.journal.directory import Journal
from mirrortool.journal.newest import ahead_seconds
from mirrortool.journal.point import Until
from mirrortool.journal.position import Position
from mirrortool.journal.reader import JournalReader
from mirrortool.journal.tail import SLOW_SECONDS


class CommitLimit:
    """The newest commit that is old enough, and not after a point; `with` closes its reader.

    Attributes:
        limit_lsn: that commit's LSN; where the replay began, if there is none yet.
        is_over: whether no later commit will ever be allowed.
    """

    def __init__(self, journal: Journal, start: Position, *, delay_seconds: float = 0.0, until: Until | None = None):
        """Begin where the replay begins.

        Args:
            delay_seconds: commits become allowed when they are this old.
            until: the last commit at or before it is the last one; of a mark, the first of that name.
        Raises:
            JournalError: the journal does not contain that position.
        """
        self._reader = JournalReader(journal, start, headers_only=True)
        self._delay_ns = int(delay_seconds * 1e9)
        self._until = until
        self._next: FrameHeader | None = None  # read, and not old enough
        self.limit_lsn = start.lsn
        self.is_over = until is not None and until.lsn is not None and start.lsn >= until.lsn

    def __enter__(self) -> CommitLimit:
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.close()

    def look(self) -> None:
        """Read as far as is allowed now.

        Raises:
            JournalError: the journal is damaged before that.
        """
        while not self.is_over and (header := self._next or self._read()):
            if self._until and is_past(header.position.lsn, header.time_ns, self._until):
                self.is_over = True
            elif self._seconds_until(header) > 0:
                self._next = header
                return
            else:
                self._pass(header)

    def is_due(self) -> bool:
        """Whether another look may find more, although the journal has not grown."""
        return self._next is not None and self._seconds_until(self._next) <= 0

    def due_seconds(self) -> float:
        """The earliest time for that, in seconds from now; never long, because the clock may be set."""
        return SLOW_SECONDS if self._next is None else max(0.0, min(SLOW_SECONDS, self._seconds_until(self._next)))

    def ahead_seconds(self) -> float | None:
        """How far the next commit's time is ahead of this host's clock; None if that is within what is allowed."""
        return ahead_seconds(self._next.time_ns, clock.now_ns()) if self._next else None

    def _read(self) -> FrameHeader | None:
        try:
            return self._reader.next_header()
        except TornJournalError:
            return None

    def _pass(self, header: FrameHeader) -> None:
        self._next = None
        if not header.is_commit:
            return
        self.limit_lsn = header.position.lsn
        if self._until and self._until.lsn is not None:
            self.is_over = self.limit_lsn >= self._until.lsn
        elif self._until and self._until.mark is not None:
            self.is_over = self._reader.batch(payload=False).name == self._until.mark

    def _seconds_until(self, header: FrameHeader) -> float:
        return (header.time_ns + self._delay_ns - clock.now_ns()) / 1e9
