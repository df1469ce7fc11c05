"""Goes ahead of a replay from commit to commit, and says up to which one it may go.

Reads headers only, and makes nothing durable: who replays reads the same frames again, and judges them. Used by the
thread that reads ahead. Bound: one reader; nothing of what it saw is kept but the newest commit.
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


class Scout:
    """The newest commit that is old enough, and not past a point; `with` closes its reader.

    Attributes:
        limit_lsn: that commit's; where the replay began, if there is none yet.
        is_over: whether no later commit will ever be allowed.
    """

    def __init__(self, journal: Journal, start: Position, *, delay_seconds: float = 0.0, until: Until | None = None):
        """Stand where the replay begins.

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

    def __enter__(self) -> Scout:
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.close()

    def look(self) -> None:
        """Go as far as it is allowed now.

        Raises:
            JournalError: the journal is damaged there.
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
        """Whether a look may find more by now, though the journal has not grown."""
        return self._next is not None and self._seconds_until(self._next) <= 0

    def due_seconds(self) -> float:
        """When that may be so at the earliest, in seconds from now; never long, as the clock may be set."""
        return SLOW_SECONDS if self._next is None else max(0.0, min(SLOW_SECONDS, self._seconds_until(self._next)))

    def ahead_seconds(self) -> float | None:
        """How far the commit that is waited for is ahead of this host's clock; None if no further than it may be."""
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
